"""Parts of a batch small enough for what is computed for each: the cache of a CPU, the memory of another device."""

from collections.abc import Iterator

import torch

CACHED = 2**21
"""Largest size in bytes of one intermediate result on a CPU; a few of them fit in its last cache."""
LARGEST = 2**29
"""Largest size in bytes on other devices, which are fastest with large parts; some ten are in use at a time."""


def batch_slices(count: int, intermediate_values: int, device: torch.device, dtype: torch.dtype) -> Iterator[slice]:
    """Split range(count) so that `intermediate_values` values per entry stay below the device's limit."""
    limit = CACHED if device.type == "cpu" else LARGEST
    size = max(1, limit // max(intermediate_values * dtype.itemsize, 1))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
