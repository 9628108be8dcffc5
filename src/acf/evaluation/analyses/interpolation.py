"""Paths between test images in latent space."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from acf.errors import DataError
from acf.evaluation.analysis import Analysed, Found
from acf.evaluation.grids import grey, tile
from acf.evaluation.likelihood import check_images, dequantise
from acf.flows.dequantise import bits_per_dim_of
from acf.flows.flow import Flow
from acf.settings.analysis_config import InterpolationConfig


@torch.no_grad()
def interpolation(flow: Flow, analysed: Analysed, config: InterpolationConfig) -> Found:
    """Follow paths from f(x) to f(y) in latent space for pairs of test images x, y, straight and along great circles.

    Images are dequantised with the noise that evaluation draws first, the same for all models. Values that leave [0, 1)
    on a path are put on its border, and the likelihood is that of the images so obtained, with one draw of the
    estimator's noise.

    Returns:
        Per kind of path (`linear`, `spherical`) `t` from 0 to 1; `bits_per_dim` of f^-1 of each point, one list per
        pair; and `outside`, the share of values that left [0, 1). `round_trip`: the largest difference of a
        value at an end of a path from that of the dequantised test image, in grey levels. `inverse_bound`: the largest
        proven bound of the l2 error with which a block was inverted. The picture has two rows per pair, the straight
        path above.

    Raises:
        DataError: there are fewer than four test images, or they are not the flow's.
    """
    pairs = min(config.pairs, len(analysed.test) // 2)
    if pairs < 2:
        raise DataError("interpolation needs two pairs of test images, and the data set has fewer than four images")
    chosen = analysed.test[: 2 * pairs]
    check_images(flow, chosen)
    levels, parameter, size = flow.config.grey_levels, next(flow.parameters()), analysed.evaluation.batch_size
    noise = torch.Generator().manual_seed(analysed.evaluation.seed)
    x = dequantise(chosen, levels, noise, parameter.dtype).to(parameter.device)
    z = torch.cat([flow.transform(batch) for batch in x.split(size)])
    t = torch.linspace(0, 1, config.steps, dtype=z.dtype, device=z.device)
    ways: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"linear": linear, "spherical": spherical}
    found = {kind: _images_of(flow, way(z[0::2], z[1::2], t), size) for kind, way in ways.items()}
    ends = x.unflatten(0, (pairs, 2))
    shown = min(config.pictured_pairs, pairs)
    pictures = torch.stack([grey(path.images[:shown], levels) for path in found.values()], dim=1)
    content = {
        **{kind: {"t": t.tolist(), **path.content()} for kind, path in found.items()},
        "round_trip": max(float((path.images[:, [0, -1]] - ends).abs().max()) for path in found.values()) * levels,
        "inverse_bound": max(path.inverse_bound for path in found.values()),
    }
    return Found(content, tile(pictures.flatten(0, 2), config.steps))


def linear(one: Tensor, other: Tensor, t: Tensor) -> Tensor:
    """Return (1 - t) one + t other, (pairs, steps, D), for latent vectors (pairs, D) and t (steps,).

    Halfway between independent standard normal vectors its norm is that of the ends divided by sqrt(2), which is rarer
    under the model than any image.
    """
    t = t[:, None]
    return (1 - t) * one[:, None] + t * other[:, None]


def spherical(one: Tensor, other: Tensor, t: Tensor) -> Tensor:
    """Interpolate norm and direction, (pairs, steps, D), for latent vectors (pairs, D) and t (steps,).

    The norm is (1 - t) |one| + t |other|, so that it is that of the ends all along; the direction turns evenly on the
    great circle through both, cos(t a) u + sin(t a) w with u = one / |one|, a the angle to v = other / |other| and w
    the unit vector of v - (u v) u (K. Shoemake, Animating rotation with quaternion curves, SIGGRAPH 1985). Between
    opposite vectors, where every great circle will do, it goes by the axis that is farthest from u.
    """
    norms = linear(one.norm(dim=1, keepdim=True), other.norm(dim=1, keepdim=True), t)
    u, v = (torch.nn.functional.normalize(end, dim=1) for end in (one, other))
    # Unlike the arc cosine of u v, it is accurate for small angles and for those near pi.
    angle = 2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1))
    axis = torch.nn.functional.one_hot(u.abs().argmin(dim=1), u.shape[1]).to(u)
    aside, instead = (to - (u * to).sum(1, keepdim=True) * u for to in (v, axis))
    opposite = (u + v).norm(dim=1, keepdim=True) < torch.finfo(u.dtype).eps ** 0.5
    w = torch.nn.functional.normalize(torch.where(opposite, instead, aside), dim=1)
    turned = t * angle[:, None]
    direction = turned.cos()[..., None] * u[:, None] + turned.sin()[..., None] * w[:, None]
    return norms * direction


@dataclass(frozen=True)
class _Images:
    """The images (pairs, steps, C, H, W) on paths of one kind, in [0, 1), and what is known of them."""

    images: Tensor
    bits_per_dim: Tensor
    outside: float
    inverse_bound: float

    def content(self) -> dict[str, Any]:
        return {"bits_per_dim": self.bits_per_dim.tolist(), "outside": self.outside}


def _images_of(flow: Flow, points: Tensor, size: int) -> _Images:
    """Return f^-1 of the points (pairs, steps, D), `size` at a time."""
    images, bits, outside, bounds = [], [], 0, [0.0]
    for z in points.flatten(0, 1).split(size):
        inversion = flow.invert(z)
        x = inversion.x.clamp(0, 1 - torch.finfo(z.dtype).eps / 2)
        outside += int((x != inversion.x).sum())
        images.append(x)
        bits.append(bits_per_dim_of(flow.log_prob(x), flow.config).cpu().double())
        bounds += [float(bound.max()) for bound in inversion.bounds.values()]
    shape = points.shape[:2]
    together = torch.cat(images).unflatten(0, shape)
    return _Images(together, torch.cat(bits).unflatten(0, shape), outside / together.numel(), max(bounds))
