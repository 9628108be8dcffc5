"""The gradient of a monotone block in training: that of the solution and that of the log-determinant together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from typing_extensions import override

from acf.flows.branch_gradient import added, joined, part, samples_at_a_time
from acf.flows.cuda_graphs import CudaGraphs
from acf.flows.fixed_point import StoppingRule
from acf.flows.implicit import MONOTONE_ONCE, adjoint_solution
from acf.flows.iteration_together import iterate_together
from acf.flows.log_det_form import MONOTONE
from acf.flows.logdet import WeightedProbe
from acf.flows.power_series import estimate_and_neumann, per_sample, value_and_neumann
from acf.lipschitz.layer import LipschitzLayer, Pullback, Tensors, flatten, unflatten
from acf.lipschitz.once_differentiable import OnceDifferentiable


@dataclass(frozen=True)
class AtSolution:
    """What training needs of g at the solution w of w + g(w) = sqrt(2) x, without graph.

    Attributes:
        w: the solution (B, ...).
        g: g(w) (B, ...).
        estimate: of the block's log-determinant (B,).
        n: Neumann vector (B, ...).
    """

    w: Tensor
    g: Tensor
    estimate: Tensor
    n: Tensor


def at_solution(
    branch: LipschitzLayer,
    y: Tensor,
    rule: StoppingRule,
    weighted_probe: WeightedProbe,
    dtype: torch.dtype,
    tensors: Tensors,
    careful: Callable[[], Tensor],
    graphs: CudaGraphs | None = None,
) -> AtSolution:
    """Solve w + g(w) = y (B, ...) and form the estimate at w; to be called under `torch.no_grad`.

    Args:
        branch: g.
        y: right-hand side sqrt(2) x.
        rule: of the iteration.
        weighted_probe: v and weights, the same for all samples.
        dtype: type of the products with J.
        tensors: those of `branch.effective_tensors()`.
        careful: returns the solution where `iterate_together` does not, or raises.
        graphs: recordings of the kernels of value and estimate, for y on CUDA.
    """
    probe, weights = weighted_probe.probe, weighted_probe.common_weights()
    slices = list(samples_at_a_time(branch, y, y.dtype))
    if graphs is not None and len(slices) == 1:  # A recording evaluates g itself, so the last evaluation is no use.
        arrived = iterate_together(lambda w: (branch.value_and_vjp(w, tensors, y.dtype)[0], None), y, rule)
        w = careful() if arrived is None else arrived.x
    else:
        parts = []
        for here in slices:
            of_slice = _at_solution_of_slice(branch, part(y, here), rule, part(probe, here), weights, dtype, tensors)
            if of_slice is None:
                break
            parts.append(of_slice)
        else:
            return AtSolution(*(joined(of_slices) for of_slices in zip(*parts, strict=True)))
        w = careful()
    results = value_and_neumann(branch, MONOTONE, weights, dtype, tensors, graphs, w, probe, *flatten(tensors))
    return AtSolution(w, *results)


def _at_solution_of_slice(
    branch: LipschitzLayer,
    y: Tensor,
    rule: StoppingRule,
    probe: Tensor,
    weights: Sequence[float],
    dtype: torch.dtype,
    tensors: Tensors,
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """Return (w, g(w), estimate, n), with g(w) and the products from the iteration's last evaluation, that at w."""
    arrived = iterate_together(lambda w: branch.value_and_vjp(w, tensors, dtype), y, rule)
    if arrived is None:
        return None
    return arrived.x, arrived.value, *estimate_and_neumann(arrived.beside, MONOTONE, probe, weights, dtype)


def differentiable_value_and_log_det_at(
    branch: LipschitzLayer,
    x: Tensor,
    solution: AtSolution,
    rule: StoppingRule,
    probe: Tensor,
    dtype: torch.dtype,
    tensors: Tensors,
) -> tuple[Tensor, Tensor]:
    """Return ((w - g(w)) / sqrt(2), estimate (B,) of the log-determinant) for w + g(w) = sqrt(2) x.

    They are differentiable once in x (B, ...) and the parameters, where w is a function of both. With the estimate's
    gradient in w among them, the equation of the adjoint has to be solved once (docs/mathematics.md, Proposition 15d).

    Args:
        branch: g.
        x: input of the block.
        solution: w and what belongs to it.
        rule: of the iteration for the gradient.
        probe: v, from which the estimate was formed.
        dtype: type of the estimate's gradient.
        tensors: those of `branch.effective_tensors()`.
    """
    results = _MonotoneInTraining.apply(branch, rule, dtype, tensors, solution, x, probe, *flatten(tensors))
    return cast(tuple[Tensor, Tensor], results)


class _MonotoneInTraining(OnceDifferentiable):
    """Value and estimate with the Neumann gradient; keeps x, w, the probe and the Neumann vector n.

    The gradient is that in w, then the solution m of the adjoint's equation, then that in theta, where m is part of the
    cotangent. One pass of dual numbers w + v serves the first and the last.
    """

    advice = MONOTONE_ONCE

    @staticmethod
    @override
    def forward(
        ctx: Any,
        branch: LipschitzLayer,
        rule: StoppingRule,
        dtype: torch.dtype,
        tensors: Tensors,
        solution: AtSolution,
        x: Tensor,
        probe: Tensor,
        *flat: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.branch, ctx.rule, ctx.dtype, ctx.structure = branch, rule, dtype, tensors
        ctx.save_for_backward(x, solution.w, probe, solution.n, *flat)
        return (solution.w - solution.g) / 2**0.5, solution.estimate

    @staticmethod
    @override
    def gradient(ctx: Any, saved: tuple[Tensor, ...], grad_y: Tensor, grad_value: Tensor) -> tuple[Tensor | None, ...]:
        _, w, probe, n, *flat = saved
        needs = ctx.needs_input_grad[7:]
        tensors = unflatten(ctx.structure, iter(flat))
        theta = [t.detach().to(ctx.dtype).requires_grad_(need) for t, need in zip(flat, needs, strict=True)]
        weighted_n = per_sample(grad_value, w) * n
        ms: list[Tensor] = []
        sums: list[Tensor] = []
        for here in samples_at_a_time(ctx.branch, w, w.dtype):
            w_here, n_here = part(w, here), part(weighted_n, here)
            z = torch.cat([w_here, part(probe, here)]).to(ctx.dtype)
            _, pullback = ctx.branch.jvp_and_pullback(z, unflatten(ctx.structure, iter(theta)))
            of_w = _gradient_in_w(pullback, theta, torch.cat([torch.zeros_like(n_here), n_here]).to(ctx.dtype))
            cotangent = torch.add(of_w.to(w.dtype), part(grad_y, here), alpha=2**0.5)
            ms.append(adjoint_solution(ctx.branch, tensors, w_here, cotangent, ctx.rule))
            if any(needs):
                _, of_tensors = pullback(torch.cat([-ms[-1], n_here]).to(ctx.dtype))
                sums = added(sums, [t for t in flatten(of_tensors) if t is not None], w.dtype)
            del pullback  # which keeps its intermediate results
        gradients = iter(sums)
        of_theta = (next(gradients) if need else None for need in needs)
        return *[None] * 5, 2**0.5 * joined(ms) - grad_y, None, *of_theta


def _gradient_in_w(pullback: Pullback, theta: Sequence[Tensor], cotangent: Tensor) -> Tensor:
    """Return the cotangent (B, ...) of w alone, from a pullback that is to be used for that of theta later."""
    needs = [t.requires_grad for t in theta]
    for t in theta:
        t.requires_grad_(False)
    of_z, _ = pullback(cotangent)
    for t, need in zip(theta, needs, strict=True):
        t.requires_grad_(need)
    return of_z.chunk(2)[0]
