"""Relative position in attention: a bias of the logits of where query and key are, not of what they are."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

LARGEST_BIAS = 3.0
"""Bound of a bias, beta: by their places alone, weights can differ by a factor of exp(2 beta) = 403."""
START = 2.0
"""Size of biases at the start where it is not zero; there the bound leaves more than half of their gradient."""


def relative_bias(table: Tensor, size: tuple[int, int]) -> Tensor:
    """Return B (heads, N, N) with B_ij = beta tanh(b[h, dy, dx] / beta), of |B_ij| < beta, for the N = H W positions.

    Positions are counted row by row, and (dy, dx) is the way from query i to key j.

    Args:
        table: b (heads, 2 H - 1, 2 W - 1), in which entry (H - 1 + dy, W - 1 + dx) is that of (dy, dx).
        size: (H, W).
    """
    height, width = size
    bounded = LARGEST_BIAS * torch.tanh(table / LARGEST_BIAS)
    # Windows of H x W entries, from that of the query in the last row and column on.
    windows = bounded.unfold(1, height, 1).unfold(2, width, 1).flip(1, 2)
    return windows.reshape(len(table), height * width, height * width)


def starting_table(start: str, heads: int, size: tuple[int, int]) -> Tensor:
    """Return a table b for `relative_bias`, named by a key of `STARTS`."""
    height, width = size
    rows = torch.arange(1 - height, height, dtype=torch.get_default_dtype())
    columns = torch.arange(1 - width, width, dtype=torch.get_default_dtype())
    wanted = torch.stack([STARTS[start](rows.unsqueeze(1), columns, head, heads) for head in range(heads)])
    return LARGEST_BIAS * torch.atanh(wanted / LARGEST_BIAS)


def _zero(dy: Tensor, dx: Tensor, head: int, heads: int) -> Tensor:
    """No bias."""
    return torch.zeros_like(dy + dx)


def _local(dy: Tensor, dx: Tensor, head: int, heads: int) -> Tensor:
    """Near positions, within about 1, 2, 4, ... positions from head to head."""
    return _bump(dy, dx, 2.0**head)


def _shifts(dy: Tensor, dx: Tensor, head: int, heads: int) -> Tensor:
    """The positions beside the query, each head another direction."""
    angle = 2 * math.pi * head / heads
    return _bump(dy - round(math.sin(angle)), dx - round(math.cos(angle)), 1.0)


def _bump(dy: Tensor, dx: Tensor, width: float) -> Tensor:
    """2 at (0, 0), falling to -2."""
    return START * (2 * torch.exp(-(dy.square() + dx.square()) / (2 * width**2)) - 1)


STARTS: dict[str, Callable[[Tensor, Tensor, int, int], Tensor]] = {"zero": _zero, "local": _local, "shifts": _shifts}
