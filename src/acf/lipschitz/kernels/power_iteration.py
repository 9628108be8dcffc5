"""Power iteration for many linear maps at once: maps of one shape are stacked, so that each step is one product.

Nothing here reads a value on the host.
"""

import math
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
        """Return T: v (L, ...) -> u (L, ...) and its adjoint, for L weights (L, ...) of this layer's shape.

        Each result may have any shape that the other function takes and that has the number of values of the vector.
        """

    def estimates(self, weights: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Return <u, T_W v> (L,), differentiable in the weights (L, ...), for L pairs u, v (L, ...)."""


Layer = TypeVar("Layer", bound=LinearMap)


def stacking_key(layer: LinearMap) -> Hashable:
    """Return what layers have in common whose weights and vectors can be stacked: class, shapes, type and device."""
    weight = layer.weight
    return type(layer), weight.shape, layer.right.shape, weight.dtype, weight.device


def groups_of_equal_shapes(layers: Iterable[Layer]) -> list[list[Layer]]:
    """Return the layers in groups whose weights and vectors can be stacked."""
    groups: dict[Hashable, list[Layer]] = defaultdict(list)
    for layer in layers:
        groups[stacking_key(layer)].append(layer)
    return list(groups.values())


@torch.no_grad()
def iterate_singular_vectors(layers: Iterable[LinearMap], iterations: int) -> None:
    """Take `iterations` steps u <- T v / |T v|, v <- T^T u / |T^T u| with each layer's own vectors.

    The iteration does not end where T v = 0, as may happen with many exact zeros: v is first moved, by no more than a
    rounding error, towards a vector that no such T takes to zero. While T = 0 both u and v are zero.
    """
    for group in groups_of_equal_shapes(layers):
        with autocast_off(group[0].weight.device.type):
            _iterate_group(group, iterations)


def _iterate_group(group: Sequence[LinearMap], iterations: int) -> None:
    apply, apply_adjoint = group[0].stacked_maps(torch.stack([layer.weight for layer in group]))
    left = right = _moved(torch.cat([layer.right for layer in group]))
    for _ in range(iterations):
        left = apply(right)
        right = _unit(apply_adjoint(left))
    if iterations:
        _store(_unit(left), [layer.left for layer in group])
        _store(right, [layer.right for layer in group])


def _store(vectors: Tensor, buffers: list[Tensor]) -> None:
    torch._foreach_copy_(buffers, vectors.view(len(buffers), *buffers[0].shape[1:]).split(1))


def _moved(right: Tensor) -> Tensor:
    """Add to each of (L, ...) the vector e^(j / (n - 1)), j = 0, ..., n - 1, scaled to the size of a rounding error.

    By the theorem of Lindemann and Weierstrass no combination of these numbers with algebraic weights is zero.
    """
    values = right[0].numel()
    vector = torch.logspace(0, 1, values, math.e, dtype=right.dtype, device=right.device)
    return right.add(vector.view(right.shape[1:]), alpha=torch.finfo(right.dtype).eps / math.sqrt(values))


def _unit(x: Tensor) -> Tensor:
    """Divide each of (L, ...) by its norm, in place; zeros stay zeros."""
    norm = torch.linalg.vector_norm(x, dim=tuple(range(1, x.dim())), keepdim=True)
    return x.div_(norm.clamp_min_(torch.finfo(x.dtype).tiny))


def stacked_estimates(group: Sequence[LinearMap], weights: Tensor) -> Tensor:
    """Return <u, T_W v> (L,) for the weights (L, ...) of one of `groups_of_equal_shapes`, differentiable in these."""
    with autocast_off(weights.device.type):
        left = torch.cat([layer.left for layer in group])
        right = torch.cat([layer.right for layer in group])
        return group[0].estimates(weights, left, right)


def stacked_matrices(weights: Tensor) -> tuple[Map, Map]:
    """Return the products with W and W^T for W (L, out, in) and vectors (L, in), (L, in, 1, 1) or (L, 1, in)."""

    def product_with(transposed: Tensor) -> Map:
        # Libraries multiply rows ten times faster than columns.
        return lambda v: torch.bmm(v if v.dim() == 3 else v.view(len(v), 1, -1), transposed)

    return product_with(weights.mT), product_with(weights)


def stacked_convolutions(weights: Tensor, size: tuple[int, int]) -> tuple[Map, Map]:
    """Return the convolution of x (L, in, H, W), each sample with its own of W (L, out, in, k, k), and its adjoint."""
    _, out, inputs, kernel, _ = weights.shape
    # Patches cost k^2 times the memory of a map, so they are made on the side with fewer channels.
    if inputs <= out:
        return _patch_products(weights.flatten(2), size, kernel)
    return _patch_products(_transposed(weights).flatten(2), size, kernel)[::-1]


def _patch_products(matrices: Tensor, size: tuple[int, int], kernel: int) -> tuple[Map, Map]:
    """Return x (L, in, H, W) -> matrices @ patches of x, and the adjoint, for matrices (L, out, in k^2)."""
    padding, adjoint = kernel // 2, matrices.mT
    return (
        lambda x: torch.bmm(matrices, F.unfold(x, kernel, padding=padding)),
        lambda y: F.fold(torch.bmm(adjoint, y.flatten(2)), size, kernel, padding=padding),
    )


def matrix_estimates(weights: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return <u, W v> (L,) for W (L, out, in), u (L, out) and v (L, in)."""
    return (torch.bmm(right.unsqueeze(1), weights.mT).squeeze(1) * left).sum(1)


def convolution_estimates(weights: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return <u, W * v> (L,) for kernels W (L, out, in, k, k), u (L, out, H, W) and v (L, in, H, W).

    This is <M, W> with M the correlation of u and v, sum_p u[p] v[p + a], which so is the gradient in W.
    """
    _, out, inputs, kernel, _ = weights.shape
    with torch.no_grad():
        if inputs <= out:
            gradient = _correlation(left, right, kernel)
        else:
            gradient = _transposed(_correlation(right, left, kernel))
    return (weights * gradient).sum((1, 2, 3, 4))


def _correlation(left: Tensor, right: Tensor, kernel: int) -> Tensor:
    patches = F.unfold(right, kernel, padding=kernel // 2)
    return torch.bmm(left.flatten(2), patches.mT).view(*left.shape[:2], right.shape[1], kernel, kernel)


def _transposed(weights: Tensor) -> Tensor:
    """The kernels (L, in, out, k, k) of the adjoint convolutions."""
    return weights.transpose(1, 2).flip(3, 4)
