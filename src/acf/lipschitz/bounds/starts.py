"""Inputs at which attention and other maps of tokens are sensitive, for attacks to start from."""

import math

import torch
from torch import Tensor


def starts(shape: tuple[int, ...], seed: int = 0, each: int = 12, dtype: torch.dtype = torch.float64) -> Tensor:
    """Inputs (B, *shape), `each` of every kind, of sizes over four decades.

    Kinds: noise; two clusters of random sizes; one token against equal others; an outlier among small tokens; nearly
    coincident tokens; nearly orthogonal tokens; several clusters; a smooth image.
    """
    draw = torch.Generator().manual_seed(seed)
    channels, count = shape[0], math.prod(shape[1:])

    def noise(*dims: int) -> Tensor:
        return torch.randn(*dims, dtype=torch.float64, generator=draw)

    kinds = []
    for _ in range(each):
        share = torch.rand(1, dtype=torch.float64, generator=draw)
        two = noise(2, channels)[(torch.rand(count, dtype=torch.float64, generator=draw) < share).long()]
        one = torch.zeros(count, channels, dtype=torch.float64)
        one[0] = noise(channels)
        outlier = torch.cat([30 * noise(1, channels), 0.1 * noise(count - 1, channels)])
        coincident = noise(1, channels).expand(count, -1) + 1e-4 * noise(count, channels)
        axes = torch.eye(channels, dtype=torch.float64)[torch.arange(count) % channels] + 0.1 * noise(count, channels)
        several = noise(4, channels)[torch.randint(4, (count,), generator=draw)] + 0.1 * noise(count, channels)
        smooth = noise(1, channels) + noise(count, channels).cumsum(0) / count**0.5
        kinds += [noise(count, channels), two + 0.05 * noise(count, channels), one + 0.01 * noise(count, channels)]
        kinds += [outlier, coincident, axes, several, smooth]
    scales = 10.0 ** (4 * torch.rand(len(kinds), 1, 1, dtype=torch.float64, generator=draw) - 2)
    return (torch.stack(kinds) * scales).mT.reshape(-1, *shape).to(dtype)


def disturbed(x: Tensor, count: int, seed: int = 0) -> Tensor:
    """`count` inputs around the one of x (1, ...): every other one with tokens replaced by others, all with noise.

    To move a token from one cluster to another is what gradient ascent cannot do. Relative sizes of the noise go from
    1e-3 to 1.
    """
    draw = torch.Generator().manual_seed(seed)
    tokens = x[0].reshape(len(x[0]), -1)
    copies = tokens.repeat(count, 1, 1)
    positions = tokens.shape[1]
    for copied in copies[::2]:
        moved = int(torch.randint(1, max(2, positions // 4 + 1), (), generator=draw))
        to, source = torch.randint(positions, (2, moved), generator=draw)
        copied[:, to] = tokens[:, source]
    noise = torch.randn(copies.shape, dtype=torch.float64, generator=draw).to(x)
    sizes = torch.logspace(-3, 0, count, dtype=x.dtype, device=x.device)[:, None, None]
    return (copies + x.square().mean().sqrt() * sizes * noise).view(count, *x.shape[1:])
