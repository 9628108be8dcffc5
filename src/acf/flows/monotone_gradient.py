"""The gradient of a monotone block in training: that of the solution and that of the log-determinant together."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from typing_extensions import override

from acf.flows.branch_gradient import branch_gradient
from acf.flows.cuda_graphs import CudaGraphs
from acf.flows.fixed_point import StoppingRule
from acf.flows.implicit import MONOTONE_ONCE, adjoint_solution
from acf.flows.log_det_form import MONOTONE
from acf.flows.logdet import WeightedProbe
from acf.flows.power_series import per_sample, value_and_neumann
from acf.lipschitz.layer import LipschitzLayer, Tensors, flatten, unflatten
from acf.lipschitz.once_differentiable import OnceDifferentiable


def differentiable_value_and_log_det_at(
    branch: LipschitzLayer,
    x: Tensor,
    w: Tensor,
    rule: StoppingRule,
    weighted_probe: WeightedProbe,
    dtype: torch.dtype,
    tensors: Tensors,
    graphs: CudaGraphs | None = None,
) -> tuple[Tensor, Tensor]:
    """Return ((w - g(w)) / sqrt(2), estimate (B,) of the log-determinant) for w + g(w) = sqrt(2) x.

    They are differentiable once in x (B, ...) and the parameters, where w is a function of both. With the estimate's
    gradient in w among them, the equation of the adjoint has to be solved once (docs/mathematics.md, Proposition 15d).

    Args:
        branch: g.
        x: input of the block.
        w: the solution, without graph.
        rule: of the iteration for the gradient.
        weighted_probe: v and weights, the same for all samples.
        dtype: type of the products with J in the estimate and of its gradient.
        tensors: those of `branch.effective_tensors()`.
        graphs: recordings of the kernels of the value, for x on CUDA.
    """
    probe, weights = weighted_probe.probe, weighted_probe.common_weights()
    results = _MonotoneInTraining.apply(branch, weights, rule, dtype, tensors, graphs, x, w, probe, *flatten(tensors))
    return cast(tuple[Tensor, Tensor], results)


class _MonotoneInTraining(OnceDifferentiable):
    """Value and estimate with the Neumann gradient; keeps x, w, the probe and the Neumann vector n."""

    advice = MONOTONE_ONCE

    @staticmethod
    @override
    def forward(
        ctx: Any,
        branch: LipschitzLayer,
        weights: Sequence[float],
        rule: StoppingRule,
        dtype: torch.dtype,
        tensors: Tensors,
        graphs: CudaGraphs | None,
        x: Tensor,
        w: Tensor,
        probe: Tensor,
        *flat: Tensor,
    ) -> tuple[Tensor, Tensor]:
        g, value, n = value_and_neumann(branch, MONOTONE, weights, dtype, tensors, graphs, w, probe, *flat)
        ctx.branch, ctx.rule, ctx.dtype, ctx.structure = branch, rule, dtype, tensors
        ctx.save_for_backward(x, w, probe, n, *flat)
        return (w - g) / 2**0.5, value

    @staticmethod
    @override
    def gradient(ctx: Any, saved: tuple[Tensor, ...], grad_y: Tensor, grad_value: Tensor) -> tuple[Tensor | None, ...]:
        _, w, probe, n, *flat = saved
        needs = ctx.needs_input_grad[9:]
        pairs = [(probe, per_sample(grad_value, w) * n)]

        def gradient(of_w: bool, of_theta: Sequence[bool], cotangent: Tensor) -> tuple[Tensor | None, ...]:
            return branch_gradient(ctx.branch, ctx.structure, flat, (of_w, *of_theta), w, cotangent, pairs, ctx.dtype)

        of_w, *_ = gradient(True, [False] * len(flat), torch.zeros_like(w))
        cotangent = torch.add(cast(Tensor, of_w), grad_y, alpha=2**0.5)
        tensors = unflatten(ctx.structure, iter(flat))
        m = adjoint_solution(ctx.branch, tensors, w, cotangent, ctx.rule)
        _, *of_theta = gradient(False, needs, -m)
        return *[None] * 6, 2**0.5 * m - grad_y, None, None, *of_theta
