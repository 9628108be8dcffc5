"""A pool of memory blocks for intermediate results on a CPU.

The C library returns large blocks to the system as soon as they are free, and gets them again page by page, zeroed. For
the layers of this package that costs more than the arithmetic on the blocks.
"""

from collections import defaultdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

SMALLEST_BYTES = 2**16
"""Smaller blocks are not pooled; sizes of pooled blocks are multiples of this."""
MAX_KEPT_BYTES = 2**28
"""Largest sum of the sizes of unused blocks in the pool."""

_free_blocks: defaultdict[int, list[np.ndarray]] = defaultdict(list)


class _RecycledArray(np.ndarray):
    """A view of a memory block that returns the block to `_free_blocks` when no tensor uses it any more."""

    memory: np.ndarray | None = None

    def __del__(self) -> None:
        memory = self.memory
        if memory is not None and sum(size * len(kept) for size, kept in _free_blocks.items()) < MAX_KEPT_BYTES:
            _free_blocks[memory.nbytes].append(memory)


def empty(shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return an uninitialised tensor of this shape, on `like`'s device and of its type unless `dtype` is given.

    On a CPU large tensors come from the pool; the allocators of other devices have pools of their own.
    """
    dtype = dtype or like.dtype
    size = torch.Size(shape).numel() * dtype.itemsize
    if not like.is_cpu or size < SMALLEST_BYTES:
        return torch.empty(shape, dtype=dtype, device=like.device)
    rounded = -(-size // SMALLEST_BYTES) * SMALLEST_BYTES
    try:
        memory = _free_blocks[rounded].pop()
    except IndexError:
        memory = torch.empty(rounded, dtype=torch.uint8, device="cpu").numpy()
    recycled: Any = memory.view(_RecycledArray)
    recycled.memory = memory
    return torch.from_numpy(recycled)[:size].view(dtype).view(shape)


def empty_like(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return an uninitialised tensor like x, with dimensions in the same order in memory; see `empty`."""
    if not _is_pooled(x, x.numel()):
        return torch.empty_like(x, dtype=dtype)
    order = sorted(range(x.dim()), key=lambda d: (x.stride(d), x.shape[d]), reverse=True)
    made = empty(tuple(x.shape[d] for d in order), x, dtype)
    return made.permute([order.index(d) for d in range(x.dim())])


def out_like(x: Tensor) -> Tensor | None:
    """Return what to pass as `out` to an operation whose result is like x: memory from the pool, or None.

    It is None for tensors that are not pooled, where it is one operation less than `empty_like`.
    """
    return empty_like(x) if _is_pooled(x, x.numel()) else None


def out_of_rows(rows: Tensor, columns: int) -> Tensor | None:
    """Return what to pass as `out` to a product of rows (n, m) with a matrix (m, columns), as `out_like` does."""
    return empty((len(rows), columns), rows) if _is_pooled(rows, len(rows) * columns) else None


def _is_pooled(like: Tensor, values: int) -> bool:
    return like.is_cpu and values * like.itemsize >= SMALLEST_BYTES
