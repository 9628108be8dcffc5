"""Experiments of params.yaml that fit two cores."""

EQUAL_SIZES = ("digits", "digits-dense", "fashion-mnist-14", "patches", "fashion-mnist-small")
"""Those whose variants are compared at equal numbers of parameters."""
SMALL = (*EQUAL_SIZES, "demo", "digits-hybrid")
