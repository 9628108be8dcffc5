"""Memory for intermediate results that is kept: on a CPU fresh pages cost more than the arithmetic done in them."""

import threading
from typing import Any

import torch
from torch import Tensor


class _Kept(threading.local):
    """Memory of one thread."""

    def __init__(self) -> None:
        self.named: dict[tuple[Any, ...], Tensor] = {}
        self.returned: list[Tensor] = []


_kept = _Kept()


def scratch(name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return a tensor of this shape and `like`'s type with any content; each thread has its own.

    Its memory is that of the last call with the same name, whose tensor must no longer be needed. Other devices than a
    CPU have allocators that keep memory themselves.
    """
    if like.device.type != "cpu":
        return torch.empty(shape, dtype=like.dtype, device=like.device)
    values, key = torch.Size(shape).numel(), (name, like.dtype)
    buffer = _kept.named.get(key)
    if buffer is None or buffer.numel() < values:
        buffer = _kept.named[key] = torch.empty(values, dtype=like.dtype)
    return buffer[:values].view(shape)


class Loan:
    """A tensor with any content whose memory goes to later loans once this object is gone.

    Attributes:
        tensor: of the shape, type and device asked for; neither it nor a view of it may be used after the loan.
    """

    def __init__(self, shape: tuple[int, ...], like: Tensor) -> None:
        self._buffer: Tensor | None = None
        if like.device.type != "cpu":
            self.tensor = torch.empty(shape, dtype=like.dtype, device=like.device)
            return
        values = torch.Size(shape).numel()
        fitting = [kept for kept in _kept.returned if kept.dtype == like.dtype and kept.numel() >= values]
        self._buffer = min(fitting, key=Tensor.numel) if fitting else torch.empty(values, dtype=like.dtype)
        _kept.returned = [kept for kept in _kept.returned if kept is not self._buffer]
        self.tensor = self._buffer[:values].view(shape)

    def __del__(self) -> None:
        if self._buffer is not None:
            _kept.returned.append(self._buffer)
