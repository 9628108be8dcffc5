"""The gradient of the inverse of x + g(x; theta), by the implicit function theorem.

At x + g(x; theta) = y with J = dg/dx, dx = (I + J)^-1 (dy - dg/dtheta dtheta). So for a cotangent c of x the gradients
are u in y and -(dg/dtheta)^T u in theta, where u + J^T u = c. The map u -> J^T u is a contraction with g's own bound,
so u is found by the iteration, and to the accuracy, of the inverse itself (docs/mathematics.md, Proposition 8d).
"""

from typing import Any, cast

import torch
from torch import Tensor
from typing_extensions import override

from acf.errors import ConvergenceError
from acf.flows.branch_gradient import branch_gradient, samples_at_a_time
from acf.flows.fixed_point import invert_each
from acf.lipschitz.layer import VJP, LipschitzLayer, Tensors, flatten, unflatten
from acf.lipschitz.once_differentiable import OnceDifferentiable

INVERSE_ONCE = (
    "an inverse can be differentiated once, backward, and neither again, nor forward, nor under transforms of "
    "torch.func; for these differentiate the forward map at the solution"
)


def differentiable_solution(branch: LipschitzLayer, x: Tensor, y: Tensor, lipschitz: float) -> Tensor:
    """Return x (B, ...) with its gradient in y and the parameters of the branch.

    Args:
        branch: g.
        x: the solution of x + g(x) = y.
        y: right-hand side.
        lipschitz: proven bound of Lip(g), below 1.
    """
    tensors = branch.effective_tensors()
    return cast(Tensor, _Solution.apply(branch, lipschitz, tensors, x, y, *flatten(tensors)))


class _Solution(OnceDifferentiable):
    """x as a function of y and theta; keeps x."""

    advice = INVERSE_ONCE

    @staticmethod
    @override
    def forward(
        ctx: Any, branch: LipschitzLayer, lipschitz: float, tensors: Tensors, x: Tensor, y: Tensor, *flat: Tensor
    ) -> Tensor:
        x = x.clone()
        ctx.branch, ctx.lipschitz, ctx.form = branch, lipschitz, tensors
        ctx.save_for_backward(x, *flat)
        return x

    @staticmethod
    @override
    def gradient(ctx: Any, saved: tuple[Tensor, ...], cotangent: Tensor) -> tuple[Tensor | None, ...]:
        x, *flat = saved
        tensors = unflatten(ctx.form, iter(flat))
        u = torch.empty_like(x)
        for here in samples_at_a_time(ctx.branch, x, x.dtype):
            _, vjp = ctx.branch.value_and_vjp(x[here].clone(), tensors, x.dtype)
            u[here] = solve_adjoint(vjp, cotangent[here], ctx.lipschitz)
        needs_y, *needs = ctx.needs_input_grad[4:]
        nothing = torch.zeros_like(x)
        _, *of_theta = branch_gradient(ctx.branch, ctx.form, flat, (False, *needs), x, -u, [(nothing, nothing)])
        return None, None, None, None, u if needs_y else None, *of_theta


def solve_adjoint(vjp: VJP, cotangent: Tensor, lipschitz: float) -> Tensor:
    """Return u (B, ...) with u + J^T u = c, to the relative accuracy of `fixed_point.invert`.

    A cotangent that is not finite has no solution; its sample becomes NaN, as in any other gradient.

    Args:
        vjp: u -> J^T u for cotangents of the first samples, as `value_and_vjp` returns it.
        cotangent: c (B, ...).
        lipschitz: proven bound of |J|, below 1.

    Raises:
        ConvergenceError: the accuracy was not reached.
    """
    # The accuracy of `invert` is absolute for small right-hand sides, but gradients may have any size.
    size = cotangent.flatten(1).norm(dim=1).view(-1, *[1] * (cotangent.dim() - 1))
    finite = size.isfinite()
    unit = torch.where(finite & (size > 0), cotangent / size, 0)

    def of_samples(u: Tensor, samples: Tensor) -> Tensor:
        first = torch.zeros_like(unit[: int(samples.max()) + 1])
        first[samples] = u
        return vjp(first)[samples]

    try:
        solution = invert_each(of_samples, unit, lipschitz)
    except ConvergenceError as error:
        raise ConvergenceError(f"gradient of an inverse: {error}") from None
    return torch.where(finite, size * solution.x, torch.nan)
