"""The gradient of a monotone block in training: that of the solution and that of the log-determinant together."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from typing_extensions import override

from acf.flows.branch_gradient import branch_gradient
from acf.flows.cuda_graphs import CudaGraphs
from acf.flows.fixed_point import StoppingRule
from acf.flows.implicit import adjoint_solution
from acf.flows.log_det_form import MONOTONE
from acf.flows.logdet import ONCE_IN_TRAINING, WeightedProbe
from acf.flows.power_series import ValueAndNeumann, per_sample
from acf.lipschitz.layer import LipschitzLayer, Tensors, flatten, unflatten


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
    results = _MonotoneInTraining.apply(rule, x, branch, weights, dtype, tensors, graphs, w, probe, *flatten(tensors))
    return cast(tuple[Tensor, Tensor], results)


class _MonotoneInTraining(ValueAndNeumann):
    """Value and estimate with the Neumann gradient; keeps w, the probe and the Neumann vector n."""

    advice = ONCE_IN_TRAINING

    @staticmethod
    @override
    def forward(  # type: ignore[override]
        ctx: Any,
        rule: StoppingRule,
        x: Tensor,
        branch: LipschitzLayer,
        weights: Sequence[float],
        dtype: torch.dtype,
        tensors: Tensors,
        graphs: CudaGraphs | None,
        w: Tensor,
        probe: Tensor,
        *flat: Tensor,
    ) -> tuple[Tensor, Tensor]:
        g, value = ValueAndNeumann.forward(ctx, branch, MONOTONE, weights, dtype, tensors, graphs, w, probe, *flat)
        ctx.rule = rule
        return (w - g) / 2**0.5, value

    @staticmethod
    @override
    def gradient(ctx: Any, saved: tuple[Tensor, ...], grad_y: Tensor, grad_value: Tensor) -> tuple[Tensor | None, ...]:
        w, probe, n, *flat = saved
        needs = ctx.needs_input_grad[9:]
        pairs = [(probe, per_sample(grad_value, w) * n)]

        def gradient(of_w: bool, of_theta: Sequence[bool], cotangent: Tensor) -> tuple[Tensor | None, ...]:
            return branch_gradient(ctx.branch, ctx.structure, flat, (of_w, *of_theta), w, cotangent, pairs, ctx.dtype)

        of_w, *_ = gradient(True, [False] * len(flat), torch.zeros_like(w))
        cotangent = torch.add(cast(Tensor, of_w), grad_y, alpha=2**0.5)
        tensors = unflatten(ctx.structure, iter(flat))
        m = adjoint_solution(ctx.branch, tensors, w, cotangent, ctx.rule)
        _, *of_theta = gradient(False, needs, -m)
        return None, 2**0.5 * m - grad_y, *[None] * 7, *of_theta
