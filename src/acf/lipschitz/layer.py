"""The base class of layers with a proven Lipschitz bound, and the explicit derivatives that a flow needs of them."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from acf.lipschitz.precision import autocast_off, require_full_precision

VJP: TypeAlias = Callable[[Tensor], Tensor]
"""u -> J^T u, the product of cotangents with the transposed Jacobian."""
Tensors: TypeAlias = tuple[Any, ...]
"""A tuple of tensors and of such tuples."""
Pullback: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensors]]
"""u -> cotangents of a value's input and of the tensors it was computed from, for its cotangent u."""


class LipschitzLayer(nn.Module, ABC):
    """A map g(x; theta) of batches (B, ...) whose samples do not see each other, with a proven bound of Lip(g) in l2.

    **Implementing a layer.** A new layer MUST implement two methods:

    - `forward(x)`: g(x) for x (B, ...). For the default derivatives it must be differentiable twice by autograd.
    - `lipschitz_bound(n_tokens)`: an upper bound of Lip(g), proven for the weights that the layer has now.

    The log-determinant of a contractive block also needs theta, J(x)^T u and J(x) dx. The base class has them from
    automatic differentiation. A layer that knows its derivatives in closed form MAY implement them faster, then all
    three together, because they share the meaning of `tensors`:

    - `effective_tensors()`: theta, all tensors that g is computed from, such as the normalised weight instead of the
      stored one. A caller takes them once and hands them to any number of calls of the other two methods.
    - `value_and_vjp(x, tensors, dtype)`: g(x), and the function u -> J(x)^T u.
    - `jvp_and_pullback(z, tensors)`: g(x) and J(x) dx for z = [x; dx], and the gradients of both.

    It MAY further declare:

    - `supports_bfloat16 = True`: the vjp and `jvp_and_pullback` keep a usable accuracy in bfloat16.
    - `intermediate_values(positions)`: the size of the largest intermediate result, from which callers choose how many
      samples to process at a time.

    A layer that belongs into configurations also needs a line in `acf.registry`. The attack
    `acf.lipschitz.bounds.attack.largest_gain` searches for inputs that refute the bound of a new layer.
    """

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Call `forward` with autocast off.

        Raises:
            InputError: x is float16, or bfloat16 in a layer that does not declare `supports_bfloat16`.
        """
        if not (x.dtype == torch.bfloat16 and self.supports_bfloat16):
            require_full_precision(x, None, type(self).__name__)
        with autocast_off(x.device.type):
            return super().__call__(x, *args, **kwargs)

    @abstractmethod
    def lipschitz_bound(self, n_tokens: int) -> float:
        """Return a proven upper bound of Lip(g), in float64, from the present weights.

        It is infinite or NaN where a parameter is not finite, and never relies on an estimate of a norm.

        Args:
            n_tokens: number of positions H W of the maps; layers whose bound does not depend on it ignore it.
        """

    @property
    def supports_bfloat16(self) -> bool:
        """Whether products and `jvp_and_pullback` may be computed in bfloat16; subclasses may set a class attribute."""
        return False

    def intermediate_values(self, positions: int) -> int:
        """Return the number of values per sample in the largest intermediate result; 0 where it is not known.

        Args:
            positions: number of positions H W of the maps.
        """
        return 0

    def effective_tensors(self) -> Tensors:
        """Return theta with graph to the parameters; by default the parameters in the order of `named_parameters`."""
        return tuple(self.parameters())

    def described_tensors(self) -> Any:
        """Return `effective_tensors`, or what they are computed from, so that many layers share the operations.

        Layers of this package describe theirs (`acf.lipschitz.effective`); others need not.
        """
        return self.effective_tensors()

    def value_and_vjp(self, x: Tensor, tensors: Tensors, dtype: torch.dtype) -> tuple[Tensor, VJP]:
        """Return g(x) and its vector-Jacobian product, both without graph, to be called under `torch.no_grad`.

        Args:
            x: (B, ...), left as it is.
            tensors: theta, as `effective_tensors` returns it.
            dtype: type of the cotangents and of the products. It differs from x's only where `supports_bfloat16`.

        Returns:
            g(x), and vjp with vjp(u) = J(x)^T u for cotangents u of the first len(u) samples, in `dtype`. So samples
            whose power series has ended can be left out. The function may overwrite u and may be called any number of
            times.
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            y = self._call_with(tensors, x)

        def vjp(u: Tensor) -> Tensor:
            with torch.enable_grad():
                used = y[: len(u)]
            (product,) = torch.autograd.grad(used, x, u, retain_graph=True)
            return product[: len(u)]

        return y.detach(), vjp

    def jvp_and_pullback(self, z: Tensor, tensors: Tensors) -> tuple[Tensor, Pullback]:
        """Return [g(x); J(x) dx] (2 B, ...) for z = [x; dx] (2 B, ...), and its pullback, both without graph.

        The gradient of w^T J v by this reverse over forward mode takes one differentiation less than reverse over
        reverse. To be called under `torch.no_grad`.

        Args:
            z: values x and tangents dx, one after the other along dimension 0.
            tensors: theta, as `effective_tensors` returns it.

        Returns:
            The output, which the caller may overwrite, and pullback with pullback(u) = (cotangent of z, cotangents of
            theta in the form of `tensors`) for a cotangent u of the output, which may be overwritten. The function may
            be called any number of times. A cotangent is None where the tensor does not require grad when it is called;
            a tensor that requires grad then must have done so when this method was called.
        """
        flat = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in flatten(tensors)]
        z = z.detach().requires_grad_(True)
        with torch.enable_grad():
            output = self._value_and_jvp(z, unflatten(tensors, iter(flat)))

        def pullback(u: Tensor) -> tuple[Tensor, Tensors]:
            wanted = [t.requires_grad for t in flatten(tensors)]
            inputs = [z, *itertools.compress(flat, wanted)]
            of_z, *others = torch.autograd.grad(output, inputs, u, retain_graph=True, materialize_grads=True)
            cotangents = iter(others)
            return of_z, unflatten(tensors, (next(cotangents) if is_wanted else None for is_wanted in wanted))

        return output.detach(), pullback

    def _value_and_jvp(self, z: Tensor, tensors: Tensors) -> Tensor:
        """[g(x); J(x) dx] for z = [x; dx], with graph to z and `tensors`."""
        # Forward mode does not cover every map (nor its own derivative); J dx is also the derivative of u -> J^T u.
        x, dx = z.chunk(2)
        y = self._call_with(tensors, x)
        u = torch.zeros_like(y, requires_grad=True)
        (vjp,) = torch.autograd.grad(y, x, u, create_graph=True)
        (dy,) = torch.autograd.grad(vjp, u, dx, create_graph=True)
        return torch.cat([y, dy])

    def _call_with(self, tensors: Tensors, x: Tensor) -> Tensor:
        names = (name for name, _ in self.named_parameters())
        return functional_call(self, dict(zip(names, tensors, strict=True)), (x,))


def flatten(tensors: Tensors) -> Iterator[Tensor]:
    """Yield all tensors of a nested tuple, in order."""
    for entry in tensors:
        if isinstance(entry, tuple):
            yield from flatten(entry)
        else:
            yield entry


def unflatten(like: Tensors, flat: Iterator[Tensor | None]) -> Tensors:
    """Return a nested tuple of the form of `like` with the tensors of `flat`."""
    return tuple(unflatten(entry, flat) if isinstance(entry, tuple) else next(flat) for entry in like)
