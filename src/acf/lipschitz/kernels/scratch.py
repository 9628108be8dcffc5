"""Memory for intermediate results that is used again: on a CPU fresh pages cost more than the arithmetic done in them.

The C library gives large blocks back to the system as soon as they are free, and gets them back page by page, zeroed.
"""

from collections import defaultdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

SMALLEST = 2**16
"""Bytes from which on memory is kept; also the step of its sizes."""
MAX_KEPT_BYTES = 2**28
"""Bytes that are kept at most."""

_free: defaultdict[int, list[np.ndarray]] = defaultdict(list)


class _Lent(np.ndarray):
    """Memory that goes back to `_free` once no tensor uses it any more."""

    memory: np.ndarray | None = None

    def __del__(self) -> None:
        memory = self.memory
        if memory is not None and sum(size * len(kept) for size, kept in _free.items()) < MAX_KEPT_BYTES:
            _free[memory.nbytes].append(memory)


def empty(shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """`torch.empty` of this shape with `like`'s device and type, unless `dtype` says otherwise.

    Other devices than a CPU have allocators that keep memory themselves.
    """
    dtype = dtype or like.dtype
    size = torch.Size(shape).numel() * dtype.itemsize
    if like.device.type != "cpu" or size < SMALLEST:
        return torch.empty(shape, dtype=dtype, device=like.device)
    rounded = -(-size // SMALLEST) * SMALLEST
    try:
        memory = _free[rounded].pop()
    except IndexError:
        memory = torch.empty(rounded, dtype=torch.uint8).numpy()
    lent: Any = memory.view(_Lent)
    lent.memory = memory
    return torch.from_numpy(lent)[:size].view(dtype).view(shape)


def empty_like(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """`torch.empty_like`, in the order of dimensions that x has in memory."""
    order = sorted(range(x.dim()), key=lambda d: (x.stride(d), x.shape[d]), reverse=True)
    made = empty(tuple(x.shape[d] for d in order), x, dtype)
    return made.permute([order.index(d) for d in range(x.dim())])
