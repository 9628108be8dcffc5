"""Parts of a batch small enough that what is computed for each stays in the cache of a CPU."""

from collections.abc import Iterator

import torch

BYTES = 2**21
"""Largest size of one intermediate result on a CPU; a few of them fit in its last cache."""


def parts(count: int, footprint: int, device: torch.device, dtype: torch.dtype) -> Iterator[slice]:
    """Split range(count) so that `footprint` values per entry stay below the limit; one part on other devices."""
    size = max(1, BYTES // max(footprint * dtype.itemsize, 1)) if device.type == "cpu" else max(count, 1)
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
