"""Paths between test images in latent space."""

import torch
from torch import Tensor

from acf.evaluation.analysis import Analysed, Found
from acf.evaluation.grids import grey, tile
from acf.evaluation.likelihood import dequantise
from acf.flows.dequantise import bits_per_dim_of
from acf.flows.flow import Flow
from acf.settings.analysis_config import InterpolationConfig


@torch.no_grad()
def interpolation(flow: Flow, analysed: Analysed, config: InterpolationConfig) -> Found:
    """Follow paths from f(x) to f(y) in latent space for pairs of test images x, y, straight and along great circles.

    Returns:
        `paths`: per kind of path (`linear`, `spherical`), `t` from 0 to 1 and `bits_per_dim` of f^-1 of each point, one
        list per pair. The picture has two rows per pair, the straight path above.
    """
    levels = flow.config.levels
    noise = torch.Generator().manual_seed(analysed.evaluation.seed)
    parameter = next(flow.parameters())
    x = dequantise(analysed.test[: 2 * config.pairs], levels, noise).to(parameter.device)
    ends = flow.transform(x)
    one, other = ends[0::2], ends[1::2]
    t = torch.linspace(0, 1, config.steps, dtype=one.dtype, device=one.device)
    rows, paths = [], {}
    for kind, follow in {"linear": linear, "spherical": spherical}.items():
        points = follow(one, other, t)
        images = flow.inverse(points.flatten(0, 1)).clamp(0, 1 - 1e-6)
        bits = bits_per_dim_of(flow.log_prob(images), flow.config).view(len(one), config.steps)
        paths[kind] = {"t": t.tolist(), "bits_per_dim": bits.tolist()}
        rows.append(grey(images, levels).unflatten(0, (len(one), config.steps)))
    pictures = torch.stack(rows, dim=1).flatten(0, 2)
    return Found({"paths": paths}, tile(pictures, config.steps))


def linear(one: Tensor, other: Tensor, t: Tensor) -> Tensor:
    """Return (1 - t) one + t other, (pairs, steps, D), for latent vectors (pairs, D) and t (steps,)."""
    t = t[:, None]
    return (1 - t) * one[:, None] + t * other[:, None]


def spherical(one: Tensor, other: Tensor, t: Tensor) -> Tensor:
    """Return sin((1 - t) a) / sin a one + sin(t a) / sin a other, (pairs, steps, D), a the angle between the two."""
    cosine = torch.nn.functional.cosine_similarity(one, other, dim=-1).clamp(-1, 1)
    angle = torch.arccos(cosine)[:, None, None]
    t = t[:, None]
    near = angle.sin() < 1e-4
    weights = [torch.sin(share * angle) / angle.sin() for share in (1 - t, t)]
    return torch.where(near, linear(one, other, t[:, 0]), weights[0] * one[:, None] + weights[1] * other[:, None])
