"""Explicit derivatives of layers: what training and evaluation need of a branch, without differentiating twice.

Three things describe a layer g(x; theta). Each is a method of that name on layers that know their derivatives in
closed form, and every other `nn.Module` gets it from automatic differentiation:

- `effective_tensors(layer)`: theta, the tensors the map is made of (a normalised weight, not the one stored), as a
  nested tuple. They are computed once, with graph to the parameters, however often the map is used.
- `value_and_vjp(layer, x, theta, dtype)`: (g(x), vjp) with vjp(v) = J(x)^T v for cotangents v of the first len(v)
  samples, so that samples whose series has ended can be left out; v, of that dtype, may be overwritten. No graph:
  products cost their arithmetic and nothing else.
- `value_and_jvp(layer, z, theta)`: values x and tangents dx in one batch, z = [x; dx], to [g(x); J(x) dx], to be
  differentiated once, backward: the gradient of w^T J v by reverse over forward, where the published code
  differentiates twice backward.

`intermediate_values(layer, positions)` is the number of values per sample in its largest intermediate result. A layer
that can do products and `value_and_jvp` in bfloat16 says `supports_bfloat16 = True`.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

VJP: TypeAlias = Callable[[Tensor], Tensor]
Tensors: TypeAlias = tuple[Any, ...]
"""Tensors and tuples of them."""


def effective_tensors(layer: nn.Module) -> Tensors:
    """Tensors that make up the map, with graph to the layer's parameters."""
    if hasattr(layer, "effective_tensors"):
        return layer.effective_tensors()  # type: ignore[operator]
    return tuple(layer.parameters())


def value_and_vjp(
    layer: nn.Module, x: Tensor, tensors: Tensors, dtype: torch.dtype | None = None
) -> tuple[Tensor, VJP]:
    """Return (g(x), pull) for x (B, ...); neither has a graph, and both are to be called under `torch.no_grad`.

    Products are of x's type unless `dtype` says otherwise, which the layer has to allow (`supports_bfloat16`).
    """
    if hasattr(layer, "value_and_vjp"):
        return layer.value_and_vjp(x, tensors, dtype or x.dtype)  # type: ignore[operator]
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        y = _call(layer, x, tensors)

    def pull(v: Tensor) -> Tensor:
        with torch.enable_grad():
            used = y[: len(v)]
        (pulled,) = torch.autograd.grad(used, x, v, retain_graph=True)
        return pulled[: len(v)]

    return y.detach(), pull


def value_and_jvp(layer: nn.Module, z: Tensor, tensors: Tensors) -> Tensor:
    """Return [g(x); J(x) dx] (2 B, ...) for z = [x; dx], with graph to z and `tensors`."""
    if hasattr(layer, "value_and_jvp"):
        return layer.value_and_jvp(z, tensors)  # type: ignore[operator]
    # Forward mode does not cover every map (nor its own derivative); J dx is also the derivative of u -> J^T u.
    z = z if z.requires_grad else z.detach().requires_grad_(True)
    x, dx = z.chunk(2)
    y = _call(layer, x, tensors)
    u = torch.zeros_like(y, requires_grad=True)
    (pulled,) = torch.autograd.grad(y, x, u, create_graph=True)
    (dy,) = torch.autograd.grad(pulled, u, dx, create_graph=True)
    return torch.cat([y, dy])


def supports_bfloat16(layer: nn.Module) -> bool:
    """Whether all of the layer can be computed in bfloat16."""
    return bool(getattr(layer, "supports_bfloat16", False))


def intermediate_values(layer: nn.Module, positions: int) -> int:
    """Values per sample in the largest intermediate result on maps with `positions` positions; 0 if not known."""
    return layer.intermediate_values(positions) if hasattr(layer, "intermediate_values") else 0  # type: ignore[operator]


def flatten(tensors: Tensors) -> Iterator[Tensor]:
    """All tensors of a nested tuple, in order."""
    for entry in tensors:
        if isinstance(entry, tuple):
            yield from flatten(entry)
        else:
            yield entry


def unflatten(like: Tensors, flat: Iterator[Tensor]) -> Tensors:
    """Nested tuple of the form of `like` with the tensors of `flat`."""
    return tuple(unflatten(entry, flat) if isinstance(entry, tuple) else next(flat) for entry in like)


def _call(layer: nn.Module, x: Tensor, tensors: Tensors) -> Tensor:
    names = (name for name, _ in layer.named_parameters())
    return functional_call(layer, dict(zip(names, tensors, strict=True)), (x,))
