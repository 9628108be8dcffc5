"""Exact log-determinants of contractive blocks on few values, and their gradient, from explicit derivatives.

The D rows of the Jacobian J are the products e_i^T J. For a matrix W that depends on the block's form
(`acf.flows.log_det_form`) the gradient is d log|det| = tr(W dJ) = sum_i w_i^T dJ e_i, where w_i is row i of W, so it
takes the same pairs of vectors as the gradient of the estimate (`acf.flows.power_series`), one per value.
"""

import math
from typing import Any, cast

import torch
from torch import Tensor
from typing_extensions import override

from acf.flows.branch_gradient import branch_gradient, samples_at_a_time
from acf.flows.log_det_form import LogDetForm
from acf.flows.logdet import ONCE_IN_TRAINING
from acf.lipschitz.layer import LipschitzLayer, Tensors, flatten
from acf.lipschitz.once_differentiable import OnceDifferentiable


@torch.inference_mode(False)
@torch.no_grad()
def value_and_exact_log_det(
    branch: LipschitzLayer, form: LogDetForm, x: Tensor, tensors: Tensors | None = None
) -> tuple[Tensor, Tensor]:
    """Return (g(x), log-determinant (B,) in nats) without graph.

    Args:
        branch: g.
        form: the log-determinant as a function of J.
        x: input (B, ...).
        tensors: those of `branch.effective_tensors()`, where the caller has them.
    """
    tensors = branch.effective_tensors() if tensors is None else tensors
    y, jacobian = _value_and_jacobian(branch, tensors, x.clone() if x.is_inference() else x)
    return y, form.log_abs_det(jacobian)


def differentiable_value_and_exact_log_det(
    branch: LipschitzLayer, form: LogDetForm, x: Tensor, tensors: Tensors | None = None
) -> tuple[Tensor, Tensor]:
    """Return what `value_and_exact_log_det` does, differentiable once in x and the parameters of the branch."""
    tensors = branch.effective_tensors() if tensors is None else tensors
    return cast(tuple[Tensor, Tensor], _ValueAndExact.apply(branch, form, tensors, x, *flatten(tensors)))


def _value_and_jacobian(branch: LipschitzLayer, tensors: Tensors, x: Tensor) -> tuple[Tensor, Tensor]:
    """g(x), and J (B, D, D)."""
    values = math.prod(x.shape[1:])
    y, jacobian = torch.empty_like(x), x.new_empty(len(x), values, values)
    for here in samples_at_a_time(branch, x, x.dtype):
        y[here], vjp = branch.value_and_vjp(x[here], tensors, x.dtype)
        for i in range(values):
            row = torch.zeros_like(x[here])
            row.flatten(1)[:, i] = 1
            jacobian[here, i] = vjp(row).flatten(1)
    return y, jacobian


class _ValueAndExact(OnceDifferentiable):
    """g(x) and the log-determinant; keeps x and W."""

    advice = ONCE_IN_TRAINING

    @staticmethod
    @override
    def forward(
        ctx: Any, branch: LipschitzLayer, form: LogDetForm, tensors: Tensors, x: Tensor, *flat: Tensor
    ) -> tuple[Tensor, Tensor]:
        y, jacobian = _value_and_jacobian(branch, tensors, x)
        ctx.branch, ctx.structure = branch, tensors
        ctx.save_for_backward(x, form.derivative(jacobian), *flat)
        return y, form.log_abs_det(jacobian)

    @staticmethod
    @override
    def gradient(ctx: Any, saved: tuple[Tensor, ...], grad_y: Tensor, grad_value: Tensor) -> tuple[Tensor | None, ...]:
        x, derivative, *flat = saved
        needs_x, *needs = ctx.needs_input_grad[3:]
        # All pairs in one pass, over copies of the batch; the gradient of g(x) itself goes with the first copy.
        samples, values = len(x), derivative.shape[1]
        copies = x.expand(values, *x.shape).flatten(0, 1)
        units = torch.eye(values, dtype=x.dtype, device=x.device).unsqueeze(1).expand(values, samples, values)
        weights = (grad_value.view(-1, 1, 1) * derivative).transpose(0, 1)
        cotangent = torch.cat([grad_y, grad_y.new_zeros(copies.shape[0] - samples, *x.shape[1:])])
        pair = units.reshape(copies.shape), weights.reshape(copies.shape)
        of_x, *of_theta = branch_gradient(ctx.branch, ctx.structure, flat, (needs_x, *needs), copies, cotangent, [pair])
        return None, None, None, None if of_x is None else of_x.view(values, *x.shape).sum(0), *of_theta
