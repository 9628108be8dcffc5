"""The fast path: branch, log-determinant and their gradient from explicit derivatives (`acf.lipschitz.layer`).

The forward pass linearises g once and forms all terms of the power series from that; it keeps x, the probe v and the
Neumann vector w, whatever the number of terms. The backward pass is one dual-number pass along v and one reverse pass
through it, which gives the gradients of g(x) and of w^T J v together. Both go through the batch in parts that stay in
the cache of a CPU. Value and gradients are those of `logdet.value_and_neumann` and `logdet.surrogate`.
"""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from acf.flows.logdet import WeightedProbe, inner_product
from acf.lipschitz.kernels.chunks import batch_slices
from acf.lipschitz.layer import (
    VJP,
    Tensors,
    effective_tensors,
    flatten,
    intermediate_values,
    supports_bfloat16,
    unflatten,
    value_and_jvp,
    value_and_vjp,
)


def with_gradient(branch: nn.Module, x: Tensor, draw: WeightedProbe, bfloat16: bool = False) -> tuple[Tensor, Tensor]:
    """Return (g(x), estimate (B,)) for x (B, ...), differentiable once in x and the parameters.

    The gradient of the estimate is that of w^T J v with w = sum_k (-1)^k c_k (J^T)^k v (arXiv 1906.02735, equation 8).

    Args:
        branch: g.
        x: input.
        draw: probe v and weights c_k, (terms, 1).
        bfloat16: whether the products with J and the gradient are computed in bfloat16 where all of g allows; g(x)
            itself never is.
    """
    tensors = effective_tensors(branch)
    reduced = torch.bfloat16 if bfloat16 and supports_bfloat16(branch) else x.dtype
    return cast(tuple[Tensor, Tensor], _Block.apply(branch, draw, reduced, tensors, x, *flatten(tensors)))


@torch.inference_mode(False)
@torch.no_grad()
def estimate(branch: nn.Module, x: Tensor, draws: list[WeightedProbe]) -> tuple[Tensor, Tensor]:
    """Return g(x) and the mean (B,) over the draws of the estimates, without gradient.

    Where samples have lengths of their own they are put in the order of these, so that each costs its own terms.
    """
    tensors = effective_tensors(branch)
    x = x.clone() if x.is_inference() else x
    y, value = torch.empty_like(x), x.new_zeros(len(x))
    order = draws[0].order()
    for part in _parts(branch, x, x.dtype):
        chosen = part if order is None else order[part]
        y[chosen], pull = value_and_vjp(branch, x[chosen], tensors)
        value[chosen] = torch.stack([_series(pull, draw.of(chosen)) for draw in draws]).mean(0)
    return y, value


def _series(pull: VJP, draw: WeightedProbe) -> Tensor:
    """Estimate (b,) for samples in the order of falling lengths."""
    total, vector = draw.probe.new_zeros(len(draw.probe)), draw.probe.clone()
    for k, (weight, left) in enumerate(zip(draw.weights, draw.samples(), strict=True), start=1):
        vector = pull(vector[:left])
        total[:left] += (-1) ** (k + 1) / k * weight[:left] * inner_product(vector, draw.probe[:left])
    return total


def _series_and_vector(pull: VJP, draw: WeightedProbe, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Estimate (b,) and Neumann vector, products in `dtype`, for samples of one length."""
    probe = draw.probe
    total, vector, w = probe.new_zeros(len(probe)), probe.to(dtype, copy=True), probe.clone()
    for k, weight in enumerate(draw.weights[:, 0], start=1):
        vector = pull(vector)
        total += (-1) ** (k + 1) / k * weight * inner_product(vector, probe)
        w += (-1) ** k * weight * vector
    return total, w


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, branch: nn.Module, draw: WeightedProbe, dtype: torch.dtype, tensors: Tensors, x: Tensor, *flat: Tensor
    ) -> tuple[Tensor, Tensor]:
        y, value, w = torch.empty_like(x), x.new_zeros(len(x)), torch.empty_like(x)
        for part in _parts(branch, x, x.dtype):
            y[part], pull = value_and_vjp(branch, x[part], tensors, dtype)
            value[part], w[part] = _series_and_vector(pull, draw.of(part), dtype)
        ctx.branch, ctx.form, ctx.dtype = branch, tensors, dtype
        ctx.save_for_backward(x, draw.probe, w, *flat)
        return y, value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_value: Tensor) -> tuple[Tensor | None, ...]:
        x, probe, w, *flat = ctx.saved_tensors
        needs_x, *needs = ctx.needs_input_grad[4:]
        flat = [t.detach().to(ctx.dtype).requires_grad_(need) for t, need in zip(flat, needs, strict=True)]
        wanted = [t for t in flat if t.requires_grad]
        tensors = unflatten(ctx.form, iter(flat))
        cotangents = torch.stack([grad_y, grad_value.view(-1, *[1] * (x.dim() - 1)) * w]).to(ctx.dtype)
        grad_x = torch.empty_like(x) if needs_x else None
        sums: list[Tensor] | None = None
        for part in _parts(ctx.branch, x, ctx.dtype):
            here = torch.cat([x[part], probe[part]]).to(ctx.dtype).requires_grad_(needs_x)
            with torch.enable_grad():
                output = value_and_jvp(ctx.branch, here, tensors)
            inputs = [*wanted, here] if needs_x else wanted
            grads = list(torch.autograd.grad(output, inputs, cotangents[:, part].flatten(0, 1), materialize_grads=True))
            if grad_x is not None:
                grad_x[part] = grads.pop().chunk(2)[0]
            if sums is None:
                sums = [torch.zeros_like(grad, dtype=x.dtype) for grad in grads]
            torch._foreach_add_(sums, grads)
        gradients = iter(sums or [])
        return None, None, None, None, grad_x, *(next(gradients) if t.requires_grad else None for t in flat)


def _parts(branch: nn.Module, x: Tensor, dtype: torch.dtype) -> Iterator[slice]:
    values = max(x[0].numel(), intermediate_values(branch, x[0, 0].numel())) if len(x) else 1
    return batch_slices(len(x), values, x.device, dtype)
