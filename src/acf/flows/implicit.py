"""The gradient of a solution x of x + s g(x; theta) = y with s = 1 or -1, by the implicit function theorem.

With J = dg/dx, dx = (I + s J)^-1 (dy - s dg/dtheta dtheta). So for a cotangent c of x the gradients are u in y and
-s (dg/dtheta)^T u in theta, where u + s J^T u = c. The map u -> s J^T u is a contraction with g's own bound, so u is
found by the iteration, and to the accuracy, of the solution itself (docs/mathematics.md, Proposition 8d).
"""

from typing import Any, cast

import torch
from torch import Tensor
from typing_extensions import override

from acf.errors import ConvergenceError
from acf.flows.branch_gradient import branch_gradient, joined, part, samples_at_a_time
from acf.flows.fixed_point import StoppingRule, iterate_each
from acf.flows.iteration_together import iterate_together
from acf.lipschitz.layer import VJP, LipschitzLayer, Tensors, flatten, unflatten
from acf.lipschitz.once_differentiable import OnceDifferentiable

INVERSE_ONCE = (
    "an inverse can be differentiated once, backward, and neither again, nor forward, nor under transforms of "
    "torch.func; for these differentiate the forward map at the solution"
)
MONOTONE_ONCE = (
    "a monotone block solves an equation in either direction, and its solution can be differentiated once, backward, "
    "and neither again, nor forward, nor under transforms of torch.func; residual blocks can (model.block: residual)"
)


class _Solution(OnceDifferentiable):
    """x as a function of y and theta; keeps x."""

    advice = INVERSE_ONCE

    @staticmethod
    @override
    def forward(
        ctx: Any,
        branch: LipschitzLayer,
        sign: int,
        rule: StoppingRule,
        tensors: Tensors,
        x: Tensor,
        y: Tensor,
        *flat: Tensor,
    ) -> Tensor:
        x = x.clone()
        ctx.branch, ctx.sign, ctx.rule, ctx.structure = branch, sign, rule, tensors
        ctx.save_for_backward(x, *flat)
        return x

    @staticmethod
    @override
    def gradient(ctx: Any, saved: tuple[Tensor, ...], cotangent: Tensor) -> tuple[Tensor | None, ...]:
        x, *flat = saved
        u = adjoint_solution(ctx.branch, unflatten(ctx.structure, iter(flat)), x, cotangent, ctx.rule, ctx.sign)
        needs_y, *needs = ctx.needs_input_grad[5:]
        nothing = torch.zeros_like(x)
        pairs = [(nothing, nothing)]
        _, *of_theta = branch_gradient(ctx.branch, ctx.structure, flat, (False, *needs), x, -ctx.sign * u, pairs)
        return *[None] * 5, u if needs_y else None, *of_theta


class SolutionOfMonotoneBlock(_Solution):
    """The same with the advice for monotone blocks."""

    advice = MONOTONE_ONCE


def differentiable_solution(
    branch: LipschitzLayer,
    x: Tensor,
    y: Tensor,
    rule: StoppingRule,
    sign: int = 1,
    function: type[_Solution] = _Solution,
    tensors: Tensors | None = None,
) -> Tensor:
    """Return x (B, ...) with its gradient in y and the parameters of the branch.

    Args:
        branch: g.
        x: the solution of x + s g(x) = y.
        y: right-hand side.
        rule: of the iteration for the gradient.
        sign: s.
        function: what refuses further derivatives in its own words.
        tensors: those of `branch.effective_tensors()`, where the caller has them.
    """
    tensors = branch.effective_tensors() if tensors is None else tensors
    return cast(Tensor, function.apply(branch, sign, rule, tensors, x, y, *flatten(tensors)))


def adjoint_solution(
    branch: LipschitzLayer, tensors: Tensors, x: Tensor, cotangent: Tensor, rule: StoppingRule, sign: int = 1
) -> Tensor:
    """Return u (B, ...) with u + s J^T u = c as `solve_adjoint`, for J the Jacobian of the branch at x (B, ...)."""
    parts = []
    for here in samples_at_a_time(branch, x, x.dtype):
        _, vjp = branch.value_and_vjp(part(x, here), tensors, x.dtype)
        parts.append(solve_adjoint(vjp, part(cotangent, here), rule, sign))
    return joined(parts)


def solve_adjoint(vjp: VJP, cotangent: Tensor, rule: StoppingRule, sign: int = 1) -> Tensor:
    """Return u (B, ...) with u + s J^T u = c, to the relative accuracy of `rule`.

    A cotangent or a Jacobian that is not finite leaves no solution; its sample becomes NaN, as in any other gradient.

    Args:
        vjp: u -> J^T u for cotangents of the first samples, as `value_and_vjp` returns it.
        cotangent: c (B, ...).
        rule: of the iteration; |J| must be at most its rate.
        sign: s.

    Raises:
        ConvergenceError: the accuracy was not reached.
    """
    # The accuracy is absolute for small right-hand sides, but gradients may have any size.
    size = cotangent.flatten(1).norm(dim=1).view(-1, *[1] * (cotangent.dim() - 1))
    finite = size.isfinite()
    unit = torch.where(finite & (size > 0), cotangent / size, 0)

    def of_all(u: Tensor) -> Tensor:
        product = vjp(u.clone())  # which may overwrite its argument
        return product if sign == 1 else sign * product

    arrived = iterate_together(lambda u: (of_all(u), None), unit, rule)
    if arrived is not None:
        return torch.where(finite, size * arrived.x, torch.nan)

    def of_samples(u: Tensor, samples: Tensor) -> Tensor:
        if len(samples) == len(unit):
            return of_all(u)
        first = torch.zeros_like(unit[: int(samples.max()) + 1])
        first[samples] = u
        return sign * vjp(first)[samples]

    try:
        solution = iterate_each(of_samples, unit, rule)
    except ConvergenceError as error:
        raise ConvergenceError(f"gradient of the solution of x + g(x) = y: {error}") from None
    return torch.where(finite, size * solution.x, torch.nan)
