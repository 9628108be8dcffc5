"""Power iteration for many linear maps at once: maps of one shape are stacked, so that each step is one product."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from acf.lipschitz.precision import autocast_off

Map = Callable[[Tensor], Tensor]


class LinearMap(Protocol):
    """A linear map T with the vectors of its power iteration.

    Attributes:
        weight: the map's weight.
        left, right: unit vectors u (1, ...) of the range and v (1, ...) of the domain.
    """

    weight: Tensor
    left: Tensor
    right: Tensor

    def stacked_maps(self, weights: Tensor) -> tuple[Map, Map]:
        """Return T: v (L, ...) -> u (L, ...) and its adjoint, for L weights (L, ...) of this layer's shape."""


Layer = TypeVar("Layer", bound=LinearMap)


def groups_of_equal_shapes(layers: Iterable[Layer]) -> list[list[Layer]]:
    """Return the layers in groups whose weights and vectors can be stacked: of one class, shape, type and device."""
    groups: dict[Hashable, list[Layer]] = defaultdict(list)
    for layer in layers:
        weight = layer.weight
        groups[type(layer), weight.shape, layer.right.shape, weight.dtype, weight.device].append(layer)
    return list(groups.values())


@torch.no_grad()
def iterate_singular_vectors(layers: Iterable[LinearMap], iterations: int) -> None:
    """Take `iterations` steps u <- T v / |T v|, v <- T^T u / |T^T u| with each layer's own vectors.

    A layer with T v = 0, from where the iteration would never come back, starts again from v = T^T u with a u without
    zeros. Where that vanishes too, as it does for T = 0, v stays as it was.
    """
    for group in groups_of_equal_shapes(layers):
        with autocast_off(group[0].weight.device.type):
            _iterate_group(group, iterations)


def _iterate_group(group: Sequence[LinearMap], iterations: int) -> None:
    maps = group[0].stacked_maps(torch.stack([layer.weight for layer in group]))
    left, right = (torch.cat([getattr(layer, name) for layer in group]) for name in ("left", "right"))
    start, (left, right) = right, _iterated(maps, left, right, iterations)
    lost = _are_zero(right)
    if lost.any():
        again = _unit(maps[1](_without_zeros(left)))
        again_left, again_right = _iterated(maps, left, again, iterations)
        left = torch.where(lost, again_left, left)
        right = torch.where(lost, torch.where(_are_zero(again_right), start, again_right), right)
    for layer, u, v in zip(group, left, right, strict=True):
        layer.left.copy_(u)
        layer.right.copy_(v)


def _iterated(maps: tuple[Map, Map], left: Tensor, right: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    apply, apply_adjoint = maps
    for _ in range(iterations):
        left = _unit(apply(right))
        right = _unit(apply_adjoint(left))
    return left, right


def _are_zero(x: Tensor) -> Tensor:
    """Whether each of (L, ...) is zero everywhere, bools (L, 1, ...)."""
    return (x == 0).flatten(1).all(1).view(-1, *[1] * (x.dim() - 1))


def _without_zeros(like: Tensor) -> Tensor:
    """Numbers between 1 and 2 without a pattern, in the shape of (L, ...)."""
    values = 1 + torch.arange(like[0].numel(), dtype=like.dtype, device=like.device).mul(0.618034).frac()
    return values.view(like.shape[1:]).expand_as(like).contiguous()


def _unit(x: Tensor) -> Tensor:
    """Divide each of (L, ...) by its norm, in place; zeros stay zeros."""
    norm = x.flatten(1).norm(dim=1).clamp_min_(torch.finfo(x.dtype).tiny)
    return x.div_(norm.view(-1, *[1] * (x.dim() - 1)))


def stacked_matrices(weights: Tensor) -> tuple[Map, Map]:
    """Return the products with W and W^T for W (L, out, in) and vectors of any shape (L, in, 1, ...)."""

    def product_with(transposed: Tensor) -> Map:
        # Libraries multiply rows ten times faster than columns.
        return lambda v: torch.bmm(v.flatten(1).unsqueeze(1), transposed).view(len(v), -1, *v.shape[2:])

    return product_with(weights.mT), product_with(weights)


def stacked_convolutions(weights: Tensor) -> tuple[Map, Map]:
    """Return the convolution of x (L, in, H, W), each sample with its own of W (L, out, in, k, k), and its adjoint."""
    return _convolutions(weights), _convolutions(weights.flip(3, 4).transpose(1, 2))


def _convolutions(weights: Tensor) -> Map:
    # Patches cost k^2 times the memory of a map, so they are made on the side with fewer channels.
    _, out, inputs, kernel, _ = weights.shape
    padding = kernel // 2
    if inputs <= out:
        wide = weights.flatten(2)
        return lambda x: torch.bmm(wide, F.unfold(x, kernel, padding=padding)).unflatten(2, x.shape[2:])
    taps = weights.flip(3, 4).permute(0, 1, 3, 4, 2).reshape(len(weights), out * kernel**2, inputs)
    return lambda x: F.fold(torch.bmm(taps, x.flatten(2)), x.shape[2:], kernel, padding=padding)
