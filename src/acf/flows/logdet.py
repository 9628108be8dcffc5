"""Estimators of log|det(I + J)| for the Jacobian J of a contraction g, and of its gradient.

With |J| < 1, log det(I + J) = sum over k >= 1 of (-1)^(k+1) / k tr(J^k). A trace is estimated by one probe v with
E[v v^T] = I, tr(A) = E[v^T A v], and the series is cut at a random length whose tail probabilities divide the terms
(Russian roulette), which keeps the mean exact (Residual Flows, arXiv 1906.02735, Theorem 1 and equation 6).

The error is mostly the probe's, and mostly in the first term: terms fall like the k-th power of J's eigenvalues over k.
`RouletteEstimator.weighted_probes` spends products accordingly: several probes that cancel each other's errors
(`probes`) on the first terms, one on the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from scipy.special import gammainc
from torch import Tensor

from acf.flows.probes import patterns
from acf.settings.config import EvaluationLogDetConfig, LogDetConfig

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class WeightedProbe:
    """The randomness of one estimate.

    Attributes:
        probe: v, of x's shape.
        weights: (terms, B) or (terms, 1): factor of the k-th term, 1 for the exact ones, then 1 / P(length >= k) as
            far as the length drawn reaches, 0 beyond.
    """

    probe: Tensor
    weights: Tensor

    def order(self) -> Tensor | None:
        """Samples from the longest series to the shortest, (B,); None where all are of one length."""
        if self.weights.shape[1] == 1:
            return None
        return (self.weights != 0).sum(0).argsort(descending=True, stable=True)

    def of(self, samples: slice | Tensor) -> Self:
        """Return the same for some of the samples."""
        one = self.weights.shape[1] == 1
        return replace(self, probe=self.probe[samples], weights=self.weights if one else self.weights[:, samples])

    def samples(self) -> list[int]:
        """Per term the number of samples whose series reach it, which are the first ones if put in `order`."""
        if self.weights.shape[1] == 1:
            return [len(self.probe)] * len(self.weights)
        return [int(count) for count in (self.weights != 0).sum(1)]


@dataclass(frozen=True)
class RouletteEstimator:
    """Exact leading terms, then a random number of further ones.

    Attributes:
        exact_terms: terms that are always computed.
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
        """P(number of further terms >= k)."""
        if k <= 0:
            return 1.0
        if self.distribution == "poisson":
            return float(gammainc(k, self.parameter))
        return (1 - self.parameter) ** k

    def weighted_probe(self, x: Tensor, per_sample: bool) -> WeightedProbe:
        """Draw probe and length, the length on the host from torch's global generator.

        Args:
            x: the input of the contraction, (B, ...).
            per_sample: one length per sample, so that the estimates of different samples are independent; otherwise
                one length for the batch, which costs fewer terms.
        """
        count = torch.ones(len(x) if per_sample else 1)
        if self.distribution == "poisson":
            further = torch.poisson(count * self.parameter)
        else:
            further = torch.empty_like(count).geometric_(self.parameter) - 1
        terms = self.exact_terms + int(further.max())
        weights = torch.ones(terms, len(count), dtype=torch.float64)
        for k in range(1, terms - self.exact_terms + 1):
            weights[self.exact_terms + k - 1] = (further >= k) / self.tail(k)
        return WeightedProbe(self._probe(x), weights.to(x.device, x.dtype))

    def weighted_probes(self, x: Tensor, per_sample: bool) -> list[WeightedProbe]:
        """Draw `probes` draws that belong together: the *mean* of their estimates is unbiased, one alone is not.

        The probes are one random v times the patterns of `probes.patterns`. Exact term k is the mean over the first
        P_k = max(1, probes // 2^(k-1)) of them, so its weight there is probes / P_k, and the series of the others end
        before it; further terms are the first probe's. Arguments as of `draw`, which is the case of one probe.
        """
        first = self.weighted_probe(x, per_sample)
        used = self._probes_of_terms()
        factors = torch.full((len(first.weights), 1), float(self.probes), dtype=x.dtype)
        factors[: len(used), 0] /= torch.tensor(used, dtype=x.dtype)
        factors = factors.to(x.device)
        draws = [WeightedProbe(first.probe, factors * first.weights)]
        for m, signs in enumerate(patterns(self.probes, tuple(x.shape[1:])).to(x.device, x.dtype)[1:], start=1):
            terms = sum(m < count for count in used)
            draws.append(WeightedProbe(first.probe * signs, factors[:terms]))
        return draws

    def _probes_of_terms(self) -> list[int]:
        """P_k of the exact terms: the k-th needs fewer, as it falls like the k-th power of J's eigenvalues over k."""
        return [max(1, self.probes // 2**k) for k in range(self.exact_terms)]

    def _probe(self, x: Tensor) -> Tensor:
        if self.probe == "gaussian":
            return torch.randn_like(x)
        return torch.randint_like(x, 2) * 2 - 1


def inner_product(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each sample, (B,), for a and b (B, ...)."""
    return (a * b).flatten(1).sum(1)


def series(g: Function, x: Tensor, draws: list[WeightedProbe]) -> tuple[Tensor, Tensor]:
    """Return (g(x), mean (B,) of the draws' estimates), both with graph: every term can be differentiated again.

    The gradient of the estimate is an unbiased gradient too, at the memory of all terms. `x` must require grad.
    """
    y = g(x)
    estimate = x.new_zeros(len(x))
    for draw in draws:
        vector = draw.probe
        for k, weight in enumerate(draw.weights, start=1):
            (vector,) = torch.autograd.grad(y, x, vector, create_graph=True)
            estimate = estimate + (-1) ** (k + 1) / k * weight * inner_product(vector, draw.probe)
    return y, estimate / len(draws)


def value_and_neumann(g: Function, x: Tensor, draw: WeightedProbe) -> tuple[Tensor, Tensor, Tensor]:
    """Return (g(x) with graph, estimate (B,), Neumann vector (B, ...)), the last two without graph.

    With r_0 = v, r_k = J^T r_(k-1) the estimate is sum_k (-1)^(k+1) c_k / k r_k . v, and the vector is
    w = v + sum_k (-1)^k c_k r_k, so that E[w v^T] = (I + J^T)^-1 and w^T dJ v is an unbiased gradient of the
    log-determinant (arXiv 1906.02735, equation 8). Both come from the same products: the value costs nothing extra.
    `x` must require grad.
    """
    y = g(x)
    estimate, vector, neumann = x.new_zeros(len(x)), draw.probe, draw.probe
    for k, weight in enumerate(draw.weights, start=1):
        (vector,) = torch.autograd.grad(y, x, vector, retain_graph=True)
        estimate = estimate + (-1) ** (k + 1) / k * weight * inner_product(vector, draw.probe)
        neumann = neumann + (-1) ** k * weight.view(-1, *[1] * (x.dim() - 1)) * vector
    return y, estimate.detach(), neumann


def surrogate(y: Tensor, x: Tensor, probe: Tensor, neumann: Tensor) -> Tensor:
    """Return w^T J v of shape (B,), whose gradient estimates that of the log-determinant; y = g(x) with graph."""
    (pulled,) = torch.autograd.grad(y, x, neumann, create_graph=True)
    return inner_product(pulled, probe)


def jacobian(g: Function, x: Tensor) -> Tensor:
    """Dense Jacobian of each sample, (B, D, D); for small D, and for g that treats samples independently."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        y = g(x).flatten(1)
        rows = [
            torch.autograd.grad(y[:, i].sum(), x, retain_graph=True, create_graph=True)[0].flatten(1)
            for i in range(y.shape[1])
        ]
    return torch.stack(rows, 1)


def exact_log_det(g: Function, x: Tensor) -> Tensor:
    """log|det(I + J_g(x))| of each sample, (B,), from the dense Jacobian; differentiable in g's parameters."""
    j = jacobian(g, x)
    return torch.linalg.slogdet(torch.eye(j.shape[-1], dtype=j.dtype, device=j.device) + j).logabsdet
