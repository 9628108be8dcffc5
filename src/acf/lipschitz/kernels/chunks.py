"""Slices of a batch whose intermediate results fit in the cache of a CPU, or in the memory of another device."""

from collections.abc import Iterator

import torch

CACHED = 2**21
"""Largest size in bytes of one intermediate result on a CPU; a few of that size fit in its last-level cache."""
LARGEST = 2**29
"""Largest size on other devices, which are fastest with large slices; about ten are in use at a time."""


def batch_slices(count: int, intermediate_values: int, device: torch.device, dtype: torch.dtype) -> Iterator[slice]:
    """Yield slices that cover range(count), each as long as the device's limit allows and at least 1.

    For no samples it is one empty slice, so that results have their shapes without a case of their own.

    Args:
        count: number of samples.
        intermediate_values: values per sample in the largest intermediate result.
        device: where it is computed.
        dtype: type of these values.
    """
    limit = CACHED if device.type == "cpu" else LARGEST
    size = max(1, limit // max(intermediate_values * dtype.itemsize, 1))
    for start in range(0, max(count, 1), size):
        yield slice(start, min(start + size, count))
