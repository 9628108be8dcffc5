"""The fast path: branch, log-determinant and their gradient from explicit derivatives (`acf.lipschitz.layer`).

The forward pass linearises g once and forms all terms of the power series from that. The gradient of the estimate is
sum_j w_j^T dJ v_j for pairs of vectors that the same products give: one pair, of the probe and the Neumann vector, with
the Neumann gradient, and one per term without. The backward pass is one dual-number pass along each v_j and one reverse
pass through it, which gives the gradient of g(x) as well (`acf.flows.branch_gradient`). What is kept for it does not
depend on the number of terms. Both process the batch in slices whose intermediate results fit in the cache of a CPU.
Value and gradients are those of `logdet.value_and_surrogate` and `logdet.value_and_series`.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from typing_extensions import override

from acf.flows.branch_gradient import Pair, branch_gradient, joined, part, samples_at_a_time
from acf.flows.cuda_graphs import CudaGraphs
from acf.flows.log_det_form import LogDetForm
from acf.flows.logdet import ONCE_IN_TRAINING, WeightedProbe, inner_product
from acf.lipschitz.layer import VJP, LipschitzLayer, Tensors, flatten, unflatten
from acf.lipschitz.once_differentiable import OnceDifferentiable


def differentiable_value_and_log_det(
    branch: LipschitzLayer,
    form: LogDetForm,
    x: Tensor,
    weighted_probe: WeightedProbe,
    neumann_gradient: bool = True,
    bfloat16: bool = False,
    tensors: Tensors | None = None,
    graphs: CudaGraphs | None = None,
) -> tuple[Tensor, Tensor]:
    """Return (g(x), estimate (B,) of the log-determinant), differentiable once in x (B, ...) and the parameters.

    With the Neumann gradient, that of the estimate is w^T dJ v with w = d_0 v + sum_k d_k c_k (J^T)^k v, which is that
    of arXiv 1906.02735, equation 8, for a residual block; without, it is the derivative of the estimate itself.

    Args:
        branch: g.
        form: the log-determinant as a function of J, with its d_k.
        x: input.
        weighted_probe: v and weights c_k, the same for all samples.
        neumann_gradient: which gradient.
        bfloat16: whether the products with J and the Neumann gradient are computed in bfloat16 where all of g allows;
            g(x) itself never is.
        tensors: those of `branch.effective_tensors()`, where the caller has them.
        graphs: recordings of the kernels, for x on CUDA; with the Neumann gradient only.
    """
    tensors = branch.effective_tensors() if tensors is None else tensors
    probe, weights = weighted_probe.probe, weighted_probe.common_weights()
    if neumann_gradient:
        reduced = torch.bfloat16 if bfloat16 and branch.supports_bfloat16 else x.dtype
        results = _ValueAndNeumann.apply(branch, form, weights, reduced, tensors, graphs, x, probe, *flatten(tensors))
    else:
        results = _ValueAndSeries.apply(branch, form, weights, tensors, x, probe, *flatten(tensors))
    return cast(tuple[Tensor, Tensor], results)


@torch.inference_mode(False)
@torch.no_grad()
def value_and_log_det(
    branch: LipschitzLayer,
    form: LogDetForm,
    x: Tensor,
    weighted_probes: list[WeightedProbe],
    tensors: Tensors | None = None,
) -> tuple[Tensor, Tensor]:
    """Return (g(x), estimate (B,) of the log-determinant) without graph; the estimate is the probes' mean.

    Samples that have series of different lengths are processed in the order of their lengths, so that each costs the
    terms of its own series only.

    Args:
        branch: g.
        form: the log-determinant as a function of J.
        x: input (B, ...).
        weighted_probes: whose estimates are averaged.
        tensors: those of `branch.effective_tensors()`, where the caller has them.
    """
    tensors = branch.effective_tensors() if tensors is None else tensors
    return _value_and_series(branch, form, tensors, x.clone() if x.is_inference() else x, weighted_probes)


def _value_and_series(
    branch: LipschitzLayer, form: LogDetForm, tensors: Tensors, x: Tensor, weighted_probes: list[WeightedProbe]
) -> tuple[Tensor, Tensor]:
    y, value = torch.empty_like(x), x.new_zeros(len(x))
    order = weighted_probes[0].longest_first()
    for here in samples_at_a_time(branch, x, x.dtype):
        samples = here if order is None else order[here]
        chosen = samples.to(x.device) if isinstance(samples, Tensor) else samples
        y[chosen], vjp = branch.value_and_vjp(x[chosen], tensors, x.dtype)
        estimates = [_series(vjp, form, probe.of_samples(samples)) for probe in weighted_probes]
        value[chosen] = torch.stack(estimates).mean(0)
    return y, value


def _series(vjp: VJP, form: LogDetForm, weighted_probe: WeightedProbe) -> Tensor:
    """Estimate (b,) for samples in the order of falling lengths."""
    probe = weighted_probe.probe
    total, vector = probe.new_zeros(len(probe)), probe.clone()
    terms = zip(weighted_probe.weights, weighted_probe.samples_per_term(), strict=True)
    for k, (weight, left) in enumerate(terms, start=1):
        vector = vjp(vector[:left])
        if form.coefficient(k):
            factor = weight[:left] if isinstance(weight, Tensor) else weight
            total[:left] += form.coefficient(k) * factor * inner_product(vector, probe[:left])
    return total


def value_and_neumann(
    branch: LipschitzLayer,
    form: LogDetForm,
    weights: Sequence[float],
    dtype: torch.dtype,
    tensors: Tensors,
    graphs: CudaGraphs | None,
    x: Tensor,
    probe: Tensor,
    *flat: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (g(x), estimate (B,), Neumann vector w (B, ...)) without graph; arguments as for the gradient's function.

    Args:
        branch: g.
        form: the log-determinant as a function of J.
        weights: c_k.
        dtype: type of the products with J.
        tensors: a nested tuple of the structure of `branch.effective_tensors()`.
        graphs: recordings of the kernels, where x lies on CUDA.
        x: (B, ...).
        probe: v (B, ...).
        flat: the tensors of `tensors`.
    """

    def compute(x: Tensor, probe: Tensor, *flat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _value_and_neumann(branch, form, unflatten(tensors, iter(flat)), x, probe, weights, dtype)

    slices = list(samples_at_a_time(branch, x, x.dtype))
    if graphs is not None and len(slices) == 1:
        results = graphs.call(branch, ("value", form, tuple(weights), dtype), compute, (x, probe, *flat))
    else:
        parts = [compute(part(x, here), part(probe, here), *flat) for here in slices]
        results = tuple(joined(of_slices) for of_slices in zip(*parts, strict=True))
    return cast(tuple[Tensor, Tensor, Tensor], results)


class _ValueAndNeumann(OnceDifferentiable):
    """g(x) and estimate with the Neumann gradient, that of w^T J v; keeps x, v and w."""

    advice = ONCE_IN_TRAINING

    @staticmethod
    @override
    def forward(
        ctx: Any,
        branch: LipschitzLayer,
        form: LogDetForm,
        weights: Sequence[float],
        dtype: torch.dtype,
        tensors: Tensors,
        graphs: CudaGraphs | None,
        x: Tensor,
        probe: Tensor,
        *flat: Tensor,
    ) -> tuple[Tensor, Tensor]:
        y, value, w = value_and_neumann(branch, form, weights, dtype, tensors, graphs, x, probe, *flat)
        ctx.branch, ctx.structure, ctx.dtype, ctx.graphs = branch, tensors, dtype, graphs
        ctx.save_for_backward(x, probe, w, *flat)
        return y, value

    @staticmethod
    @override
    def gradient(ctx: Any, saved: tuple[Tensor, ...], grad_y: Tensor, grad_value: Tensor) -> tuple[Tensor | None, ...]:
        x = saved[0]
        needs_x, _, *needs = ctx.needs_input_grad[6:]

        def compute(
            x: Tensor, probe: Tensor, w: Tensor, grad_y: Tensor, grad_value: Tensor, *flat: Tensor
        ) -> tuple[Tensor | None, ...]:
            pairs = [(probe, per_sample(grad_value, x) * w)]
            return branch_gradient(ctx.branch, ctx.structure, flat, (needs_x, *needs), x, grad_y, pairs, ctx.dtype)

        inputs = (*saved[:3], grad_y, grad_value, *saved[3:])
        if ctx.graphs is not None and len(list(samples_at_a_time(ctx.branch, x, ctx.dtype))) == 1:
            of_x, *of_theta = ctx.graphs.call(ctx.branch, ("gradient", needs_x, ctx.dtype), compute, inputs)
        else:
            of_x, *of_theta = compute(*inputs)
        return *[None] * 6, of_x, None, *of_theta


class _ValueAndSeries(OnceDifferentiable):
    """g(x) and estimate with the gradient of the estimate itself; keeps x, v and the weights."""

    advice = ONCE_IN_TRAINING

    @staticmethod
    @override
    def forward(
        ctx: Any,
        branch: LipschitzLayer,
        form: LogDetForm,
        weights: Sequence[float],
        tensors: Tensors,
        x: Tensor,
        probe: Tensor,
        *flat: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.branch, ctx.form, ctx.structure, ctx.weights = branch, form, tensors, weights
        ctx.save_for_backward(x, probe, *flat)
        return _value_and_series(branch, form, tensors, x, [WeightedProbe(probe, weights)])

    @staticmethod
    @override
    def gradient(ctx: Any, saved: tuple[Tensor, ...], grad_y: Tensor, grad_value: Tensor) -> tuple[Tensor | None, ...]:
        x, probe, *flat = saved
        pairs = _pairs(ctx.branch, ctx.form, unflatten(ctx.structure, iter(flat)), x, probe, ctx.weights)
        pairs = [(v, per_sample(grad_value, x) * w) for v, w in pairs]
        needs_x, _, *needs = ctx.needs_input_grad[4:]
        of_x, *of_theta = branch_gradient(ctx.branch, ctx.structure, flat, (needs_x, *needs), x, grad_y, pairs)
        return *[None] * 4, of_x, None, *of_theta


def per_sample(values: Tensor, x: Tensor) -> Tensor:
    """Return values (B,) as (B, 1, ...), with as many dimensions as x."""
    return values.view(-1, *[1] * (x.dim() - 1))


def _value_and_neumann(
    branch: LipschitzLayer,
    form: LogDetForm,
    tensors: Tensors,
    x: Tensor,
    probe: Tensor,
    weights: Sequence[float],
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    y, vjp = branch.value_and_vjp(x, tensors, dtype)
    return y, *estimate_and_neumann(vjp, form, probe, weights, dtype)


def estimate_and_neumann(
    vjp: VJP, form: LogDetForm, probe: Tensor, weights: Sequence[float], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the estimate (b,) and the Neumann vector (b, ...).

    With r_k = (J^T)^k v the estimate is v^T sum_k d_(k-1) c_k / k r_k, one inner product for all terms.

    Args:
        vjp: u -> J^T u in `dtype`, as `value_and_vjp` returns it.
        form: the log-determinant as a function of J.
        probe: v (b, ...).
        weights: c_k.
        dtype: type of the products.
    """
    vector, w = probe.to(dtype, copy=True), probe if form.slope(0) == 1 else probe * form.slope(0)
    series: Tensor | None = None
    for k, weight in enumerate(weights, start=1):
        vector = vjp(vector)
        if form.coefficient(k):
            factor = form.coefficient(k) * weight
            series = vector.to(probe.dtype) * factor if series is None else series.add_(vector, alpha=factor)
        if form.slope(k):
            factor = form.slope(k) * weight
            w = torch.add(w, vector, alpha=factor) if w is probe else w.add_(vector, alpha=factor)
    return probe.new_zeros(probe.shape[0]) if series is None else inner_product(series, probe), w


def _pairs(
    branch: LipschitzLayer,
    form: LogDetForm,
    tensors: Tensors,
    x: Tensor,
    probe: Tensor,
    weights: Sequence[float],
) -> list[Pair]:
    """Return v_j, w_j such that the derivative of the estimate is sum_j w_j^T dJ v_j; one pair per term, at least one.

    With a_k the factor of v^T J^k v, and d(v^T J^k v) = sum_(i+j=k-1) ((J^T)^i v)^T dJ (J^j v): v_j = J^j v and
    w_j = sum_i a_(i+j+1) (J^T)^i v.
    """
    factors = [form.coefficient(k) * c for k, c in enumerate(weights, start=1)]
    count = max(1, len(factors))
    vs, ws = (torch.zeros(count, *x.shape, dtype=x.dtype, device=x.device) for _ in range(2))
    vs[0] = probe
    for here in samples_at_a_time(branch, x, x.dtype):
        _, vjp = branch.value_and_vjp(x[here], tensors, x.dtype)
        left = vs[0, here].clone()
        for i in range(len(factors)):
            left = vjp(left) if i else left
            for j, factor in enumerate(factors[i:]):
                ws[j, here] += factor * left
        for j in range(1, count):
            z, _ = branch.jvp_and_pullback(torch.cat([x[here], vs[j - 1, here]]), tensors)
            vs[j, here] = z.chunk(2)[1]
    return list(zip(vs, ws, strict=True))
