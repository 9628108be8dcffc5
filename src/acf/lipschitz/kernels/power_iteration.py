"""Power iteration for many linear maps at once: maps of one shape are stacked, so that each step is one product."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

Map = Callable[[Tensor], Tensor]


class Iterated(Protocol):
    """A linear map with the vectors of its power iteration.

    Attributes:
        weight: the map's weight.
        left, right: unit vectors u (1, ...) of the range and v (1, ...) of the domain.
    """

    weight: Tensor
    left: Tensor
    right: Tensor

    def stacked(self, weights: Tensor) -> tuple[Map, Map]:
        """Maps v (L, ...) -> u (L, ...) and back by the adjoint, for L weights of this layer's shape."""


Layer = TypeVar("Layer", bound=Iterated)


def alike(layers: Iterable[Layer]) -> list[list[Layer]]:
    """Layers whose weights and vectors can be stacked, in groups."""
    groups: dict[Hashable, list[Layer]] = defaultdict(list)
    for layer in layers:
        weight = layer.weight
        groups[type(layer), weight.shape, layer.right.shape, weight.dtype, weight.device].append(layer)
    return list(groups.values())


@torch.no_grad()
def iterate(layers: Iterable[Iterated], iterations: int) -> None:
    """Take `iterations` steps u <- T v / |T v|, v <- T^T u / |T^T u| with each layer's own vectors."""
    for group in alike(layers):
        forward, backward = group[0].stacked(torch.stack([layer.weight for layer in group]))
        left, right = (torch.cat([getattr(layer, name) for layer in group]) for name in ("left", "right"))
        start = right
        for _ in range(iterations):
            left = _unit(forward(right))
            right = _unit(backward(left))
        # A weight of zeros must not leave a vector of zeros, from which the iteration would never come back.
        lost = (right == 0).flatten(1).all(1).view(-1, *[1] * (right.dim() - 1))
        for layer, u, v in zip(group, left, torch.where(lost, start, right), strict=True):
            layer.left.copy_(u)
            layer.right.copy_(v)


def _unit(x: Tensor) -> Tensor:
    """Each of (L, ...) over its norm, in place; zeros stay zeros."""
    norm = x.flatten(1).norm(dim=1).clamp_min_(torch.finfo(x.dtype).tiny)
    return x.div_(norm.view(-1, *[1] * (x.dim() - 1)))


def stacked_matrices(weights: Tensor) -> tuple[Map, Map]:
    """Products of W (L, out, in) with vectors whose values stand in any shape (L, in, 1, ...)."""

    def by(transposed: Tensor) -> Map:
        # Libraries multiply rows ten times faster than columns.
        return lambda v: torch.bmm(v.flatten(1).unsqueeze(1), transposed).view(len(v), -1, *v.shape[2:])

    return by(weights.mT), by(weights)


def stacked_convolutions(weights: Tensor) -> tuple[Map, Map]:
    """Convolutions of x (L, in, H, W) with W (L, out, in, k, k), each sample by its own weight."""
    return _convolutions(weights), _convolutions(weights.flip(3, 4).transpose(1, 2))


def _convolutions(weights: Tensor) -> Map:
    """Patches are made on the side with fewer channels."""
    _, out, inputs, kernel, _ = weights.shape
    padding = kernel // 2
    if inputs <= out:
        wide = weights.flatten(2)
        return lambda x: torch.bmm(wide, F.unfold(x, kernel, padding=padding)).unflatten(2, x.shape[2:])
    taps = weights.flip(3, 4).permute(0, 1, 3, 4, 2).reshape(len(weights), out * kernel**2, inputs)
    return lambda x: F.fold(torch.bmm(taps, x.flatten(2)), x.shape[2:], kernel, padding=padding)
