"""The fast path: branch, log-determinant and their gradient from explicit derivatives (`acf.lipschitz.layer`).

The forward pass linearises g once and forms all terms of the power series from that. The gradient of the estimate is
sum_j w_j^T dJ v_j for pairs of vectors that the same products give: one pair, of the probe and the Neumann vector, with
the Neumann gradient, and one per term without. The backward pass is one dual-number pass along each v_j and one reverse
pass through it, which gives the gradient of g(x) as well (`acf.flows.branch_gradient`). What is kept for it does not
depend on the number of terms. Both process the batch in slices whose intermediate results fit in the cache of a CPU.
Value and gradients are those of `logdet.value_and_surrogate` and `logdet.value_and_series`.
"""

from typing import Any, cast

import torch
from torch import Tensor
from typing_extensions import override

from acf.flows.branch_gradient import Pair, branch_gradient, samples_at_a_time
from acf.flows.logdet import ONCE_IN_TRAINING, WeightedProbe, inner_product
from acf.lipschitz.layer import VJP, LipschitzLayer, Tensors, flatten, unflatten
from acf.lipschitz.once_differentiable import OnceDifferentiable


def differentiable_value_and_log_det(
    branch: LipschitzLayer,
    x: Tensor,
    weighted_probe: WeightedProbe,
    neumann_gradient: bool = True,
    bfloat16: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return (g(x), estimate (B,) of the log-determinant) for x (B, ...), differentiable once in x and the parameters.

    With the Neumann gradient, that of the estimate is w^T dJ v with w = v + sum_k (-1)^k c_k (J^T)^k v (arXiv
    1906.02735, equation 8); without, it is the derivative of the estimate itself.

    Args:
        branch: g.
        x: input.
        weighted_probe: v and weights c_k, (terms, 1).
        neumann_gradient: which gradient.
        bfloat16: whether the products with J and the Neumann gradient are computed in bfloat16 where all of g allows;
            g(x) itself never is.
    """
    tensors = branch.effective_tensors()
    if neumann_gradient:
        reduced = torch.bfloat16 if bfloat16 and branch.supports_bfloat16 else x.dtype
        results = _ValueAndNeumann.apply(branch, weighted_probe, reduced, tensors, x, *flatten(tensors))
    else:
        results = _ValueAndSeries.apply(branch, weighted_probe, tensors, x, *flatten(tensors))
    return cast(tuple[Tensor, Tensor], results)


@torch.inference_mode(False)
@torch.no_grad()
def value_and_log_det(branch: LipschitzLayer, x: Tensor, weighted_probes: list[WeightedProbe]) -> tuple[Tensor, Tensor]:
    """Return (g(x), estimate (B,) of the log-determinant) without graph; the estimate is the mean over the probes'.

    Samples that have series of different lengths are processed in the order of their lengths, so that each costs the
    terms of its own series only.
    """
    return _value_and_series(branch, branch.effective_tensors(), x.clone() if x.is_inference() else x, weighted_probes)


def _value_and_series(
    branch: LipschitzLayer, tensors: Tensors, x: Tensor, weighted_probes: list[WeightedProbe]
) -> tuple[Tensor, Tensor]:
    y, value = torch.empty_like(x), x.new_zeros(len(x))
    order = weighted_probes[0].longest_first()
    for here in samples_at_a_time(branch, x, x.dtype):
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


class _ValueAndNeumann(OnceDifferentiable):
    """Branch and estimate with the Neumann gradient, that of w^T J v; keeps x, v and w."""

    advice = ONCE_IN_TRAINING

    @staticmethod
    @override
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
        for here in samples_at_a_time(branch, x, x.dtype):
            y[here], vjp = branch.value_and_vjp(x[here], tensors, dtype)
            value[here], w[here] = _series_and_neumann(vjp, weighted_probe.of_samples(here), dtype)
        ctx.branch, ctx.form, ctx.dtype = branch, tensors, dtype
        ctx.save_for_backward(x, weighted_probe.probe, w, *flat)
        return y, value

    @staticmethod
    @override
    def gradient(ctx: Any, saved: tuple[Tensor, ...], grad_y: Tensor, grad_value: Tensor) -> tuple[Tensor | None, ...]:
        x, probe, w, *flat = saved
        pairs = [(probe, _per_sample(grad_value, x) * w)]
        needed = ctx.needs_input_grad[4:]
        return *[None] * 4, *branch_gradient(ctx.branch, ctx.form, flat, needed, x, grad_y, pairs, ctx.dtype)


class _ValueAndSeries(OnceDifferentiable):
    """Branch and estimate with the gradient of the estimate itself; keeps x, v and the weights."""

    advice = ONCE_IN_TRAINING

    @staticmethod
    @override
    def forward(
        ctx: Any, branch: LipschitzLayer, weighted_probe: WeightedProbe, tensors: Tensors, x: Tensor, *flat: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.branch, ctx.form = branch, tensors
        ctx.save_for_backward(x, weighted_probe.probe, weighted_probe.weights, *flat)
        return _value_and_series(branch, tensors, x, [weighted_probe])

    @staticmethod
    @override
    def gradient(ctx: Any, saved: tuple[Tensor, ...], grad_y: Tensor, grad_value: Tensor) -> tuple[Tensor | None, ...]:
        x, probe, weights, *flat = saved
        pairs = _pairs(ctx.branch, unflatten(ctx.form, iter(flat)), x, WeightedProbe(probe, weights))
        pairs = [(v, _per_sample(grad_value, x) * w) for v, w in pairs]
        needed = ctx.needs_input_grad[3:]
        return *[None] * 3, *branch_gradient(ctx.branch, ctx.form, flat, needed, x, grad_y, pairs)


def _per_sample(values: Tensor, x: Tensor) -> Tensor:
    """(B,) -> (B, 1, ...), with as many dimensions as x."""
    return values.view(-1, *[1] * (x.dim() - 1))


def _series_and_neumann(vjp: VJP, weighted_probe: WeightedProbe, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Estimate (b,) and Neumann vector, products in `dtype`, for samples of one length."""
    probe = weighted_probe.probe
    total, vector, w = probe.new_zeros(len(probe)), probe.to(dtype, copy=True), probe.clone()
    for k, weight in enumerate(weighted_probe.weights[:, 0], start=1):
        vector = vjp(vector)
        total += (-1) ** (k + 1) / k * weight * inner_product(vector, probe)
        w += (-1) ** k * weight * vector
    return total, w


def _pairs(branch: LipschitzLayer, tensors: Tensors, x: Tensor, weighted_probe: WeightedProbe) -> list[Pair]:
    """Return v_j, w_j such that the derivative of the estimate is sum_j w_j^T dJ v_j; one pair per term, at least one.

    With a_k the factor of v^T J^k v, and d(v^T J^k v) = sum_(i+j=k-1) ((J^T)^i v)^T dJ (J^j v): v_j = J^j v and
    w_j = sum_i a_(i+j+1) (J^T)^i v.
    """
    factors = [(-1) ** (k + 1) / k * float(c) for k, c in enumerate(weighted_probe.weights[:, 0], start=1)]
    count = max(1, len(factors))
    vs, ws = (torch.zeros(count, *x.shape, dtype=x.dtype, device=x.device) for _ in range(2))
    vs[0] = weighted_probe.probe
    for here in samples_at_a_time(branch, x, x.dtype):
        _, vjp = branch.value_and_vjp(x[here], tensors, x.dtype)
        left = vs[0, here].clone()
        for i in range(len(factors)):
            left = vjp(left) if i else left
            for j, factor in enumerate(factors[i:]):
                ws[j, here] += factor * left
        for j in range(1, count):
            with torch.enable_grad():  # The default `value_and_jvp` differentiates within.
                z = branch.value_and_jvp(torch.cat([x[here], vs[j - 1, here]]), tensors)
            vs[j, here] = z.detach().chunk(2)[1]
    return list(zip(vs, ws, strict=True))
