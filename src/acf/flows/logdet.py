"""Estimators of the log-determinants of contractive blocks, with the Jacobian J of the branch, and of their gradient.

With |J| < 1, log det(I + J) = sum over k >= 1 of (-1)^(k+1) / k tr(J^k), and other blocks have other coefficients
(`acf.flows.log_det_form`). A trace is estimated by one probe v with E[v v^T] = I, tr(A) = E[v^T A v], and the series is
cut at a random length whose tail probabilities divide the terms (Russian roulette), which keeps the mean exact
(Residual Flows, arXiv 1906.02735, Theorem 1 and equation 6).

The error is mostly the probe's, and mostly in the first term: terms fall like the k-th power of J's eigenvalues over k.
So `RouletteEstimator.weighted_probes` uses several probes that cancel each other's errors (`acf.flows.probes`) for the
first terms, and one for the others.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Literal, Self, cast

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import gammainc
from torch import Tensor, nn
from typing_extensions import override

from acf.flows.log_det_form import RESIDUAL, LogDetForm
from acf.flows.probes import patterns
from acf.lipschitz.once_differentiable import OnceDifferentiable, is_transformed, refuse_transforms
from acf.settings.config import EvaluationLogDetConfig, LogDetConfig

Function = Callable[[Tensor], Tensor]
ONCE_IN_TRAINING = (
    "in training mode the gradient of a block's log-determinant is an estimate of its own, which can be "
    "differentiated neither again, nor forward, nor under transforms of torch.func; for these use evaluation mode "
    "(flow.eval()), or set both neumann_gradient and memory_efficient in training_log_det to false"
)


@dataclass(frozen=True)
class WeightedProbe:
    """A probe with weights of the terms: all the randomness of one estimate.

    Attributes:
        probe: v, of x's shape.
        weights: factor of the k-th term, 1 for the exact ones, then 1 / P(length >= k) as far as the random length
            reaches: a tensor (terms, B) with 0 beyond each sample's length, or a number per term for all samples.
        terms: number of terms of each sample's series (B,), on the CPU; None for all of `weights`.
    """

    probe: Tensor
    weights: Tensor | Sequence[float]
    terms: Tensor | None = None

    def common_weights(self) -> list[float]:
        """Return a number per term, where all samples have the same."""
        if isinstance(self.weights, Tensor):
            return self.weights.squeeze(1).tolist()
        return list(self.weights)

    def longest_first(self) -> Tensor | None:
        """Return the samples' indices (B,), on the CPU, from the longest series on; None if all have one length."""
        return None if self.terms is None else self.terms.argsort(descending=True, stable=True)

    def of_samples(self, samples: slice | Tensor) -> Self:
        """Return probe and weights of some samples, given by a slice or by indices on the CPU."""
        weights, terms = self.weights, None if self.terms is None else self.terms[samples]
        if isinstance(samples, Tensor):
            samples = samples.to(self.probe.device)
        if isinstance(weights, Tensor) and weights.shape[1] > 1:
            weights = weights[:, samples]
        return replace(self, probe=self.probe[samples], weights=weights, terms=terms)

    def samples_per_term(self) -> list[int]:
        """Return for each term how many series reach it; in the order of `longest_first` those are the first ones."""
        if self.terms is None:
            return [len(self.probe)] * len(self.weights)
        return [int((self.terms >= k).sum()) for k in range(1, len(self.weights) + 1)]


@dataclass(frozen=True)
class RouletteEstimator:
    """Estimator with a fixed number of leading terms and a random number of further ones, by Russian roulette.

    Attributes:
        exact_terms: number of leading terms, which are always computed.
        distribution: law of the number of further terms on 0, 1, 2, ...
        parameter: rate of the Poisson law, or success probability of the geometric one.
        probe: law of v; Rademacher has the smaller variance.
        probes: number of probes of the first term in `weighted_probes`.
    """

    exact_terms: int
    distribution: Literal["poisson", "geometric"]
    parameter: float
    probe: Literal["rademacher", "gaussian"]
    probes: int = 1

    @classmethod
    def from_config(cls, config: LogDetConfig) -> Self:
        """Build from the fields of a configuration."""
        probes = config.probes if isinstance(config, EvaluationLogDetConfig) else 1
        return cls(config.exact_terms, config.distribution, config.parameter, config.probe, probes)

    def tail(self, k: int) -> float:
        """Return P(number of further terms >= k)."""
        return 1.0 if k <= 0 else float(_tails(self.distribution, self.parameter, _power_of_two(k))[k - 1])

    def systematic_lengths(self, count: int, generator: torch.Generator | None = None) -> list[int]:
        """Draw the number of further terms of `count` estimates that are added up, such as those of a flow's blocks.

        The lengths are the law's quantiles at (pi(i) + U) / count, with one U uniform in (0, 1] and a random
        permutation pi of 0, ..., count - 1 (systematic sampling). Each length has exactly the law, as pi(i) + U is
        uniform in (0, count]; together they are spread over it evenly, so that their sum hardly varies. Any two
        estimates depend on each other through their lengths alone. Drawn on the host, from torch's global generator
        or the one that is given.
        """
        start = 1 - torch.rand((), dtype=torch.float64, device="cpu", generator=generator)
        return self._lengths((torch.randperm(count, device="cpu", generator=generator) + start) / count)

    def _lengths(self, levels: Tensor) -> list[int]:
        """The numbers of k >= 1 with tail(k) > level, 0 < level <= 1: at a uniform one P(length >= k) = tail(k)."""
        count, lowest = _power_of_two(1), float(levels.min()) if len(levels) else 1.0
        while (tails := _tails(self.distribution, self.parameter, count))[-1] > lowest:
            count *= 2
        lengths: list[int] = np.searchsorted(-tails, np.negative(levels.tolist())).tolist()
        return lengths

    def series_weights(self, length: int) -> list[float]:
        """Return the weights of a series with `length` further terms: 1 for the exact ones, then 1/tail(1), ..."""
        return [1.0] * self.exact_terms + [1 / self.tail(k) for k in range(1, length + 1)]

    def weighted_probe(self, x: Tensor, per_sample: bool) -> WeightedProbe:
        """Draw probe and length, the length on the host from torch's global generator.

        Args:
            x: the input of the contraction, (B, ...).
            per_sample: one length per sample, so that the estimates of different samples are independent; otherwise
                one length for the batch, which costs fewer terms.
        """
        if not per_sample:
            (length,) = self.systematic_lengths(1)
            return WeightedProbe(self.draw_probe(x), self.series_weights(length))
        further = self._lengths(1 - torch.rand(len(x), dtype=torch.float64, device="cpu"))
        terms = self.exact_terms + torch.tensor(further, dtype=torch.int64, device="cpu")
        weights = torch.tensor(self.series_weights(max(further, default=0)), dtype=torch.float64, device="cpu")
        reached = torch.arange(1, len(weights) + 1, device="cpu").unsqueeze(1) <= terms
        return WeightedProbe(self.draw_probe(x), (weights.unsqueeze(1) * reached).to(x.device, x.dtype), terms)

    def weighted_probes(self, x: Tensor, per_sample: bool) -> list[WeightedProbe]:
        """Draw `probes` weighted probes whose estimates have an unbiased *mean*; a single one of them is biased.

        The probes are one random v times the patterns of `probes.patterns`. Exact term k is the mean over the first
        P_k = max(1, probes // 2^(k-1)) of them, so its weight there is probes / P_k, and the series of the others end
        before it; further terms are estimated by the first probe alone. With `probes` = 1 this is `weighted_probe`.

        Args:
            x: as for `weighted_probe`.
            per_sample: as for `weighted_probe`.
        """
        first = self.weighted_probe(x, per_sample)
        used = self._probes_of_terms()
        factors = torch.full((len(first.weights), 1), float(self.probes), dtype=x.dtype, device="cpu")
        factors[: len(used), 0] /= torch.tensor(used, dtype=x.dtype, device="cpu")
        factors = factors.to(x.device)
        weights = first.weights
        if not isinstance(weights, Tensor):
            weights = torch.tensor(weights, dtype=x.dtype, device="cpu").unsqueeze(1).to(x.device)
        weighted_probes = [WeightedProbe(first.probe, factors * weights, first.terms)]
        for m, signs in enumerate(patterns(self.probes, tuple(x.shape[1:])).to(x.device, x.dtype)[1:], start=1):
            terms = sum(m < count for count in used)
            weighted_probes.append(WeightedProbe(first.probe * signs, factors[:terms]))
        return weighted_probes

    def _probes_of_terms(self) -> list[int]:
        """P_k of the exact terms; terms fall like the k-th power of J's eigenvalues over k, so later ones get fewer."""
        return [max(1, self.probes // 2**k) for k in range(self.exact_terms)]

    def draw_probe(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw v of x's shape and type, from the global generator of x's device or the one of it that is given."""
        if self.probe == "gaussian":
            return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
        return torch.randint(2, x.shape, generator=generator, dtype=x.dtype, device=x.device) * 2 - 1


def _power_of_two(k: int) -> int:
    """The smallest power of two that is at least k and 64: tables of few sizes are kept."""
    return max(64, 1 << (k - 1).bit_length())


@cache
def _tails(distribution: str, parameter: float, count: int) -> npt.NDArray[np.float64]:
    """P(number of further terms >= k) for k = 1, ..., count."""
    k = np.arange(1.0, count + 1)
    return np.asarray(gammainc(k, parameter) if distribution == "poisson" else (1 - parameter) ** k)


def inner_product(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product (B,) of each sample of a and b (B, ...)."""
    return (a * b).flatten(1).sum(1)


def value_and_series(
    g: Function, x: Tensor, weighted_probes: list[WeightedProbe], form: LogDetForm = RESIDUAL
) -> tuple[Tensor, Tensor]:
    """Return (g(x), mean (B,) of the probes' estimates), both with graph: every term can be differentiated again.

    The gradient of the estimate is unbiased too, but the graph keeps all terms in memory.
    """
    y, vjp = _value_and_vjp(g, x)
    estimate = x.new_zeros(len(x))
    for weighted_probe in weighted_probes:
        vector = weighted_probe.probe
        for k, weight in enumerate(weighted_probe.weights, start=1):
            vector = vjp(vector)
            estimate = estimate + form.coefficient(k) * weight * inner_product(vector, weighted_probe.probe)
    return y, estimate / len(weighted_probes)


def _value_and_vjp(g: Function, x: Tensor) -> tuple[Tensor, Function]:
    """Return g(x) and the function u -> J^T u, both differentiable in every way, even under `torch.no_grad`."""
    with torch.enable_grad():
        if is_transformed(x):
            y, pullback = cast(tuple[Tensor, Callable[[Tensor], tuple[Tensor, ...]]], torch.func.vjp(g, x))
        else:
            start = differentiable(x)
            y = g(start)
            pullback = partial(torch.autograd.grad, y, start, create_graph=True)

    def vjp(u: Tensor) -> Tensor:
        with torch.enable_grad():
            return pullback(u)[0]

    return y, vjp


def differentiable(x: Tensor) -> Tensor:
    """Return x where it requires grad, and otherwise a leaf of the same values that does."""
    return x if x.requires_grad else x.detach().requires_grad_(True)


def value_and_neumann(
    g: Function, x: Tensor, weighted_probe: WeightedProbe, form: LogDetForm = RESIDUAL
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (g(x) with graph, estimate (B,), Neumann vector (B, ...)), the last two without graph.

    With r_0 = v, r_k = J^T r_(k-1) and the d_k of `form` the estimate is sum_k d_(k-1) c_k / k r_k . v, and the vector
    is w = d_0 v + sum_k d_k c_k r_k, so that E[w v^T] = sum_k d_k (J^T)^k, which is (I + J^T)^-1 for a residual block,
    and w^T dJ v is an unbiased gradient of the log-determinant (arXiv 1906.02735, equation 8). Both come from the same
    products: the value costs nothing extra. `x` must require grad.
    """
    y = g(x)
    estimate, vector, neumann = x.new_zeros(len(x)), weighted_probe.probe, form.slope(0) * weighted_probe.probe
    for k, weight in enumerate(weighted_probe.weights, start=1):
        (vector,) = torch.autograd.grad(y, x, vector, retain_graph=True)
        estimate = estimate + form.coefficient(k) * weight * inner_product(vector, weighted_probe.probe)
        factor = weight.view(-1, *[1] * (x.dim() - 1)) if isinstance(weight, Tensor) else weight
        neumann = neumann + form.slope(k) * factor * vector
    return y, estimate.detach(), neumann


def surrogate(y: Tensor, x: Tensor, probe: Tensor, neumann: Tensor) -> Tensor:
    """Return w^T J v of shape (B,), whose gradient estimates that of the log-determinant; y = g(x) with graph."""
    (vjp,) = torch.autograd.grad(y, x, neumann, create_graph=True)
    return inner_product(vjp, probe)


def value_and_surrogate(
    branch: nn.Module, x: Tensor, weighted_probe: WeightedProbe, form: LogDetForm = RESIDUAL
) -> tuple[Tensor, Tensor]:
    """Return (g(x), estimate (B,) of the log-determinant) whose gradient, taken once, is that of `surrogate`."""
    refuse_transforms(ONCE_IN_TRAINING, x, *branch.parameters())
    x = differentiable(x)
    y, value, neumann = value_and_neumann(branch, x, weighted_probe, form)
    gradient = surrogate(y, x, weighted_probe.probe, neumann)
    return y, _WithGradientOf.apply(value, gradient, x, *branch.parameters())


class _WithGradientOf(OnceDifferentiable):
    """The first argument's value with the second one's gradient, which depends on all others."""

    advice = ONCE_IN_TRAINING

    @staticmethod
    @override
    def forward(ctx: Any, value: Tensor, surrogate: Tensor, *sources: Tensor) -> Tensor:
        ctx.save_for_backward(*sources)
        ctx.sources = len(sources)
        return value.clone()

    @staticmethod
    @override
    def gradient(ctx: Any, saved: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, grad, *[None] * ctx.sources


def jacobian(g: Function, x: Tensor) -> Tensor:
    """Return the dense Jacobian (B, D, D) of each sample, with graph; g must treat samples independently."""
    y, vjp = _value_and_vjp(lambda t: g(t).flatten(1), x)
    basis = torch.eye(y.shape[1], dtype=y.dtype, device=y.device)
    return torch.stack([vjp(e.expand_as(y)).flatten(1) for e in basis], 1)


def exact_log_det(g: Function, x: Tensor, form: LogDetForm = RESIDUAL) -> Tensor:
    """Return the log-determinant (B,) in nats from the dense Jacobian J_g(x), log|det(I + J)| by default.

    It is differentiable in x and g's parameters.
    """
    return form.log_abs_det(jacobian(g, x))
