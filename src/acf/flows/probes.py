"""Patterns of signs under which the probes of one trace estimate cancel each other's largest errors.

For random signs v, v^T A v = tr A + sum over i != j of A_ij v_i v_j. With P probes v o h_m, h_m of fixed signs, every
one of them has the law of v, so their mean is unbiased for every A; and its error has A_ij multiplied by
(1/P) sum_m h_m(i) h_m(j), which is 0 where i and j differ in their colour. Neighbours get different colours, because
Jacobians of convolutions are largest there: hierarchical probing (Stathopoulos, Laeuchli, Orginos: Hierarchical probing
for estimating the trace of the matrix inverse on toroidal lattices, arXiv 1302.4018).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def patterns(count: int, shape: tuple[int, ...]) -> Tensor:
    """Return `count` patterns of signs over one sample, (count, *shape), int64 on the CPU; the first is all ones.

    h_m(i) = (-1)^(number of ones in the binary digits of m & colour(i)): rows of a Hadamard matrix, so that the first
    2^b patterns are orthogonal over any values of 2^b different colours modulo 2^b, for every b.
    """
    colour = colours(shape)
    digits = max(1, (count - 1).bit_length())
    rows = torch.arange(count, device="cpu").view(-1, *[1] * len(shape))
    common = torch.stack([(rows & colour) >> b & 1 for b in range(digits)])
    return 1 - 2 * (common.sum(0) % 2)


def colours(shape: tuple[int, ...]) -> Tensor:
    """Return a number >= 0 per value, different for all of them, whose lowest digits tell neighbours apart.

    On maps (C, H, W) the squeezes are undone first, as C allows, so that channels are the pixels they come from. There
    the lowest digit is a checkerboard, the next tells rows apart, and the following ones do the same in squares of 2,
    4, ... pixels; channels that are left (three of colours) are a third direction. Other shapes are just numbered.
    """
    if len(shape) != 3:
        return torch.arange(torch.Size(shape).numel(), device="cpu").view(shape)
    channels, height, width = shape
    squeezes = 0
    while channels % 4 == 0:
        channels, height, width, squeezes = channels // 4, 2 * height, 2 * width, squeezes + 1
    colour = _lattice(channels, height, width)
    for _ in range(squeezes):
        colour = F.pixel_unshuffle(colour, 2)
    return colour


def _lattice(*sizes: int) -> Tensor:
    """Colours of a grid of these sizes: per level the parity of the sum of all directions, then of all but one."""
    grid = torch.meshgrid(*(torch.arange(size, device="cpu") for size in sizes), indexing="ij")
    colour, digit = torch.zeros(sizes, dtype=torch.int64, device="cpu"), 0
    for level in range((max(sizes) - 1).bit_length()):
        own = [axis >> level for axis, size in zip(grid, sizes, strict=True) if size > 1 << level]
        for value in [torch.stack(own).sum(0), *own[:-1]]:
            colour, digit = colour + ((value & 1) << digit), digit + 1
    return colour
