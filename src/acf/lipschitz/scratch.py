"""Memory for intermediate results that is kept: on a CPU fresh pages cost more than the arithmetic done in them."""

import threading

import torch
from torch import Tensor

_kept = threading.local()


def scratch(name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return a tensor of this shape and `like`'s type with any content; each thread has its own.

    Its memory is that of the last call with the same name, whose tensor must no longer be needed. Other devices than a
    CPU have allocators that keep memory themselves.
    """
    if like.device.type != "cpu":
        return torch.empty(shape, dtype=like.dtype, device=like.device)
    values = torch.Size(shape).numel()
    key = f"{name} {like.dtype}"
    buffer: Tensor | None = getattr(_kept, key, None)
    if buffer is None or buffer.numel() < values:
        buffer = torch.empty(values, dtype=like.dtype)
        setattr(_kept, key, buffer)
    return buffer[:values].view(shape)
