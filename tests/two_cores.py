"""Experiments of params.yaml that fit two cores, and those of equal sizes."""

ONE_THREAD = ("digits", "digits-dense", "fashion-mnist-14", "patches", "fashion-mnist-small")
EQUAL_SIZES = (*ONE_THREAD, "fashion-mnist-medium", "fashion-mnist-medium-dense")
"""Those whose variants are compared at equal numbers of parameters."""
SMALL = (*ONE_THREAD, "demo", "digits-hybrid")
"""Those whose models compute with one thread each."""
