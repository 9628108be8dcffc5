"""Experiments of params.yaml that fit two cores, or a small GPU."""

EQUAL_SIZES = ("digits", "digits-dense", "fashion-mnist-14", "patches", "fashion-mnist-small", "fashion-mnist-medium")
"""Those whose variants are compared at equal numbers of parameters."""
SMALL = (*EQUAL_SIZES, "demo", "digits-hybrid")
