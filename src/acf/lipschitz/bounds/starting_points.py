"""Inputs at which attention and other maps of tokens have large gains, from which attacks start."""

import math

import torch
from torch import Tensor


def starting_points(
    shape: tuple[int, ...], seed: int = 0, per_kind: int = 12, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Return inputs (B, *shape), `per_kind` of every kind, of sizes over four decades.

    Kinds: noise; two clusters of random sizes; one token against equal others; an outlier among small tokens; nearly
    coincident tokens; nearly orthogonal tokens; several clusters; a smooth image.

    Args:
        shape: of one input, channels first.
        seed: of all random draws.
        per_kind: number of inputs of every kind.
        dtype: of the result.
    """
    generator = torch.Generator().manual_seed(seed)
    channels, count = shape[0], math.prod(shape[1:])

    def noise(*dims: int) -> Tensor:
        return torch.randn(*dims, dtype=torch.float64, generator=generator, device="cpu")

    kinds = []
    for _ in range(per_kind):
        share = torch.rand(1, dtype=torch.float64, generator=generator, device="cpu")
        chosen = torch.rand(count, dtype=torch.float64, generator=generator, device="cpu") < share
        two = noise(2, channels)[chosen.long()]
        one = torch.zeros(count, channels, dtype=torch.float64, device="cpu")
        one[0] = noise(channels)
        outlier = torch.cat([30 * noise(1, channels), 0.1 * noise(count - 1, channels)])
        coincident = noise(1, channels).expand(count, -1) + 1e-4 * noise(count, channels)
        axes = torch.eye(channels, dtype=torch.float64, device="cpu")[torch.arange(count, device="cpu") % channels]
        axes = axes + 0.1 * noise(count, channels)
        several = noise(4, channels)[torch.randint(4, (count,), generator=generator, device="cpu")]
        several = several + 0.1 * noise(count, channels)
        smooth = noise(1, channels) + noise(count, channels).cumsum(0) / count**0.5
        kinds += [noise(count, channels), two + 0.05 * noise(count, channels), one + 0.01 * noise(count, channels)]
        kinds += [outlier, coincident, axes, several, smooth]
    scales = 10.0 ** (4 * torch.rand(len(kinds), 1, 1, dtype=torch.float64, generator=generator, device="cpu") - 2)
    return (torch.stack(kinds) * scales).mT.reshape(-1, *shape).to(dtype)


def perturbed(x: Tensor, count: int, seed: int = 0) -> Tensor:
    """Return `count` inputs around the one of x (1, ...): all with noise, every other one with some tokens replaced.

    Gradient ascent cannot move a token from one cluster to another; replacing it by a token of the other cluster does.
    Relative sizes of the noise range from 1e-3 to 1.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens = x[0].reshape(len(x[0]), -1)
    copies = tokens.repeat(count, 1, 1)
    positions = tokens.shape[1]
    for copied in copies[::2]:
        moved = int(torch.randint(1, max(2, positions // 4 + 1), (), generator=generator, device="cpu"))
        to, source = torch.randint(positions, (2, moved), generator=generator, device="cpu")
        copied[:, to] = tokens[:, source]
    noise = torch.randn(copies.shape, dtype=torch.float64, generator=generator, device="cpu").to(x)
    noise_scales = torch.logspace(-3, 0, count, dtype=x.dtype, device=x.device)[:, None, None]
    return (copies + x.square().mean().sqrt() * noise_scales * noise).view(count, *x.shape[1:])
