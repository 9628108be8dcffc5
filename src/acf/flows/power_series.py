"""The fast path: branch, log-determinant and their gradient from explicit derivatives (`acf.lipschitz.layer`).

The forward pass linearises g once and forms all terms of the power series from that; it keeps x, the probe v and the
Neumann vector w, whatever the number of terms. The backward pass is one dual-number pass along v and one reverse pass
through it, which gives the gradients of g(x) and of w^T J v together. Both process the batch in slices whose
intermediate results fit in the cache of a CPU. Value and gradients are those of `logdet.value_and_neumann` and
`logdet.surrogate`.
"""

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from acf.flows.logdet import WeightedProbe, inner_product
from acf.lipschitz.kernels.chunks import batch_slices
from acf.lipschitz.layer import VJP, LipschitzLayer, Tensors, flatten, unflatten


def differentiable_value_and_log_det(
    branch: LipschitzLayer, x: Tensor, weighted_probe: WeightedProbe, bfloat16: bool = False
) -> tuple[Tensor, Tensor]:
    """Return (g(x), estimate (B,) of the log-determinant) for x (B, ...), differentiable once in x and the parameters.

    The gradient of the estimate is that of w^T J v with w = v + sum_k (-1)^k c_k (J^T)^k v (arXiv 1906.02735,
    equation 8).

    Args:
        branch: g.
        x: input.
        weighted_probe: v and weights c_k, (terms, 1).
        bfloat16: whether the products with J and the gradient are computed in bfloat16 where all of g allows; g(x)
            itself never is.
    """
    tensors = branch.effective_tensors()
    reduced = torch.bfloat16 if bfloat16 and branch.supports_bfloat16 else x.dtype
    results = _ValueAndLogDet.apply(branch, weighted_probe, reduced, tensors, x, *flatten(tensors))
    return cast(tuple[Tensor, Tensor], results)


@torch.inference_mode(False)
@torch.no_grad()
def value_and_log_det(branch: LipschitzLayer, x: Tensor, weighted_probes: list[WeightedProbe]) -> tuple[Tensor, Tensor]:
    """Return (g(x), estimate (B,) of the log-determinant) without graph; the estimate is the mean over the probes'.

    Samples that have series of different lengths are processed in the order of their lengths, so that each costs the
    terms of its own series only.
    """
    tensors = branch.effective_tensors()
    x = x.clone() if x.is_inference() else x
    y, value = torch.empty_like(x), x.new_zeros(len(x))
    order = weighted_probes[0].longest_first()
    for here in _slices(branch, x, x.dtype):
        chosen = here if order is None else order[here]
        y[chosen], vjp = branch.value_and_vjp(x[chosen], tensors, x.dtype)
        value[chosen] = torch.stack([_series(vjp, probe.of_samples(chosen)) for probe in weighted_probes]).mean(0)
    return y, value


def _series(vjp: VJP, weighted_probe: WeightedProbe) -> Tensor:
    """Estimate (b,) for samples in the order of falling lengths."""
    probe = weighted_probe.probe
    total, vector = probe.new_zeros(len(probe)), probe.clone()
    terms = zip(weighted_probe.weights, weighted_probe.samples_per_term(), strict=True)
    for k, (weight, left) in enumerate(terms, start=1):
        vector = vjp(vector[:left])
        total[:left] += (-1) ** (k + 1) / k * weight[:left] * inner_product(vector, probe[:left])
    return total


def _series_and_neumann(vjp: VJP, weighted_probe: WeightedProbe, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Estimate (b,) and Neumann vector, products in `dtype`, for samples of one length."""
    probe = weighted_probe.probe
    total, vector, w = probe.new_zeros(len(probe)), probe.to(dtype, copy=True), probe.clone()
    for k, weight in enumerate(weighted_probe.weights[:, 0], start=1):
        vector = vjp(vector)
        total += (-1) ** (k + 1) / k * weight * inner_product(vector, probe)
        w += (-1) ** k * weight * vector
    return total, w


class _ValueAndLogDet(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        branch: LipschitzLayer,
        weighted_probe: WeightedProbe,
        dtype: torch.dtype,
        tensors: Tensors,
        x: Tensor,
        *flat: Tensor,
    ) -> tuple[Tensor, Tensor]:
        y, value, w = torch.empty_like(x), x.new_zeros(len(x)), torch.empty_like(x)
        for here in _slices(branch, x, x.dtype):
            y[here], vjp = branch.value_and_vjp(x[here], tensors, dtype)
            value[here], w[here] = _series_and_neumann(vjp, weighted_probe.of_samples(here), dtype)
        ctx.branch, ctx.form, ctx.dtype = branch, tensors, dtype
        ctx.save_for_backward(x, weighted_probe.probe, w, *flat)
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
        for here in _slices(ctx.branch, x, ctx.dtype):
            z = torch.cat([x[here], probe[here]]).to(ctx.dtype).requires_grad_(needs_x)
            with torch.enable_grad():
                output = ctx.branch.value_and_jvp(z, tensors)
            inputs = [*wanted, z] if needs_x else wanted
            grads = list(torch.autograd.grad(output, inputs, cotangents[:, here].flatten(0, 1), materialize_grads=True))
            if grad_x is not None:
                grad_x[here] = grads.pop().chunk(2)[0]
            if sums is None:
                sums = [torch.zeros_like(grad, dtype=x.dtype) for grad in grads]
            torch._foreach_add_(sums, grads)
        gradients = iter(sums or [])
        return None, None, None, None, grad_x, *(next(gradients) if t.requires_grad else None for t in flat)


def _slices(branch: LipschitzLayer, x: Tensor, dtype: torch.dtype) -> Iterator[slice]:
    """Slices of the samples whose intermediate results fit in the cache."""
    values = max(x[0].numel(), branch.intermediate_values(x[0, 0].numel())) if len(x) else 1
    return batch_slices(len(x), values, x.device, dtype)
