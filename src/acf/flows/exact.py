"""Exact log-determinants of residual blocks on few values, and their gradient, from explicit derivatives.

The D rows of the Jacobian J are the products e_i^T J. With W = (I + J)^-1 the gradient is
d log|det(I + J)| = tr(W dJ) = sum_i w_i^T dJ e_i, where w_i is row i of W, so it takes the same pairs of vectors as
the gradient of the estimate (`acf.flows.power_series`), one per value.
"""

import math
from typing import Any, cast

import torch
from torch import Tensor
from typing_extensions import override

from acf.flows.branch_gradient import branch_gradient, samples_at_a_time
from acf.flows.logdet import ONCE_IN_TRAINING
from acf.lipschitz.layer import LipschitzLayer, Tensors, flatten
from acf.lipschitz.once_differentiable import OnceDifferentiable


@torch.inference_mode(False)
@torch.no_grad()
def value_and_exact_log_det(branch: LipschitzLayer, x: Tensor, tensors: Tensors | None = None) -> tuple[Tensor, Tensor]:
    """Return (x + g(x), log|det(I + J_g(x))| (B,) in nats) without graph.

    Args:
        branch: g.
        x: input (B, ...).
        tensors: those of `branch.effective_tensors()`, where the caller has them.
    """
    tensors = branch.effective_tensors() if tensors is None else tensors
    y, matrix = _value_and_matrix(branch, tensors, x.clone() if x.is_inference() else x)
    return y, torch.linalg.slogdet(matrix).logabsdet


def differentiable_value_and_exact_log_det(
    branch: LipschitzLayer, x: Tensor, tensors: Tensors | None = None
) -> tuple[Tensor, Tensor]:
    """Return what `value_and_exact_log_det` does, differentiable once in x and the parameters of the branch."""
    tensors = branch.effective_tensors() if tensors is None else tensors
    return cast(tuple[Tensor, Tensor], _ValueAndExact.apply(branch, tensors, x, *flatten(tensors)))


def _value_and_matrix(branch: LipschitzLayer, tensors: Tensors, x: Tensor) -> tuple[Tensor, Tensor]:
    """x + g(x), and I + J (B, D, D)."""
    values = math.prod(x.shape[1:])
    y, matrix = torch.empty_like(x), x.new_empty(len(x), values, values)
    for here in samples_at_a_time(branch, x, x.dtype):
        y[here], vjp = branch.value_and_vjp(x[here].clone(), tensors, x.dtype)
        for i in range(values):
            row = torch.zeros_like(x[here])
            row.flatten(1)[:, i] = 1
            matrix[here, i] = vjp(row).flatten(1)
    matrix.diagonal(dim1=1, dim2=2).add_(1)
    return y.add_(x), matrix


class _ValueAndExact(OnceDifferentiable):
    """x + g(x) and the log-determinant; keeps x and (I + J)^-1."""

    advice = ONCE_IN_TRAINING

    @staticmethod
    @override
    def forward(ctx: Any, branch: LipschitzLayer, tensors: Tensors, x: Tensor, *flat: Tensor) -> tuple[Tensor, Tensor]:
        y, matrix = _value_and_matrix(branch, tensors, x)
        inverse = torch.linalg.inv_ex(matrix).inverse
        ctx.branch, ctx.form = branch, tensors
        ctx.save_for_backward(x, inverse, *flat)
        return y, torch.linalg.slogdet(matrix).logabsdet

    @staticmethod
    @override
    def gradient(ctx: Any, saved: tuple[Tensor, ...], grad_y: Tensor, grad_value: Tensor) -> tuple[Tensor | None, ...]:
        x, inverse, *flat = saved
        needs_x, *needs = ctx.needs_input_grad[2:]
        # All pairs in one pass, over copies of the batch; the gradient of g(x) itself goes with the first copy.
        samples, values = len(x), inverse.shape[1]
        copies = x.expand(values, *x.shape).flatten(0, 1)
        units = torch.eye(values, dtype=x.dtype, device=x.device).unsqueeze(1).expand(values, samples, values)
        weights = (grad_value.view(-1, 1, 1) * inverse).transpose(0, 1)
        cotangent = torch.cat([grad_y, grad_y.new_zeros(copies.shape[0] - samples, *x.shape[1:])])
        pair = units.reshape(copies.shape), weights.reshape(copies.shape)
        of_x, *of_theta = branch_gradient(ctx.branch, ctx.form, flat, (needs_x, *needs), copies, cotangent, [pair])
        if of_x is not None:
            of_x = of_x.view(values, *x.shape).sum(0) + grad_y
        return None, None, of_x, *of_theta
