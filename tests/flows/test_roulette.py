"""Roulette estimators as they are drawn: means of value and gradients are within confidence intervals of exact ones."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from acf.flows.logdet import RouletteEstimator, WeightedProbe, surrogate, value_and_neumann, value_and_series
from acf.flows.residual import ResidualBlock
from acf.settings.config import EvaluationLogDetConfig, TrainingLogDetConfig
from tests.building_blocks.blocks import BLOCK_KINDS, block_with_one_signed_jacobian, make_residual_block
from tests.building_blocks.jacobians import jacobian
from tests.building_blocks.settings import with_attention
from tests.building_blocks.weights import bring_norms_to_limits

DRAWS = 10_000
SIGMAS = 4.5
SHAPE = (1, 2, 2)

# The Jacobians have spectral radius at most 0.65, so the geometric laws have finite variance (Proposition 10c). Poisson
# lengths of rate 2 are too skewed for 500 of them to have a normal mean; test_logdet.py has that rate.
ESTIMATORS = {
    "poisson, rademacher": RouletteEstimator(0, "poisson", 3.0, "rademacher"),
    "poisson, gaussian": RouletteEstimator(1, "poisson", 2.5, "gaussian"),
    "geometric, rademacher": RouletteEstimator(2, "geometric", 0.4, "rademacher"),
    "geometric, gaussian": RouletteEstimator(0, "geometric", 0.4, "gaussian"),
}
every_kind = pytest.mark.parametrize("kind", BLOCK_KINDS)
every_estimator = pytest.mark.parametrize("name", ESTIMATORS)
both_gradients = pytest.mark.parametrize("neumann", [True, False], ids=["neumann", "series"])

# The exact mean over all probes holds for every kind and both gradients in test_logdet.py, and the laws of lengths know
# nothing of the kind. These kinds are drawn with all estimators and gradients, the others with two estimators and the
# Neumann gradient.
DRAWN = ("conv", "fc", "l2", "l2, block")
BOTH_LAWS_AND_PROBES = ("poisson, rademacher", "geometric, gaussian")
WITH_EXACT_TERMS = ("poisson, gaussian", "geometric, rademacher")


def slow_if(slow: bool, *values: object) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow if slow else ())


# Differentiating the whole series is slow.
kinds_and_gradients = pytest.mark.parametrize(
    ("kind", "neumann"),
    [slow_if(not neumann and kind not in DRAWN, kind, neumann) for kind in BLOCK_KINDS for neumann in (True, False)],
    ids=[f"{kind}-{gradient}" for kind in BLOCK_KINDS for gradient in ("neumann", "series")],
)


def within(values: Tensor, exact: Tensor) -> bool:
    """Whether the mean over the first dimension lies within SIGMAS standard errors of `exact`, everywhere."""
    error = values.std(0) / math.sqrt(len(values))
    return bool(((values.mean(0) - exact).abs() <= SIGMAS * error + 1e-9).all())


Change = Callable[[WeightedProbe], WeightedProbe]


def estimates(
    block: ResidualBlock,
    x: Tensor,
    estimator: RouletteEstimator,
    neumann: bool,
    change: Change = lambda probe: probe,
    draws: int = DRAWS,
) -> tuple[Tensor, Tensor]:
    """Values (draws,) and gradients with respect to x (draws, D), each from a draw of its own."""
    torch.manual_seed(7)
    many = x.expand(draws, *SHAPE).clone().requires_grad_()
    weighted_probe = change(estimator.weighted_probe(many, per_sample=True))
    if neumann:
        y, value, vector = value_and_neumann(block.branch, many, weighted_probe)
        (gradient,) = torch.autograd.grad(surrogate(y, many, weighted_probe.probe, vector).sum(), many)
    else:
        _, value = value_and_series(block.branch, many, [weighted_probe])
        (gradient,) = torch.autograd.grad(value.sum(), many)
    return value.detach(), gradient.flatten(1)


def exact(block: ResidualBlock, x: Tensor, terms: int | None = None) -> tuple[Tensor, list[Tensor]]:
    """log|det(I + J)|, or the sum of its first terms, with its gradients for x and every parameter."""
    x = x.clone().requires_grad_()
    j = jacobian(block.branch, x, create_graph=True)
    if terms is None:
        value = torch.linalg.slogdet(torch.eye(len(j), dtype=j.dtype) + j).logabsdet
    else:
        powers = itertools.accumulate([j] * terms, torch.matmul)
        value = sum(((-1) ** (k + 1) / k * power.trace() for k, power in enumerate(powers, 1)), j.new_zeros(()))
    inputs = [x, *block.parameters()]
    gradients = torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)
    return value.detach(), [gradient.flatten() for gradient in gradients]


@every_kind
def test_high_orders_and_every_attention_count_in_these_blocks(kind: str) -> None:
    """Otherwise the tests below would not notice a mistake in them."""
    block, x = block_with_one_signed_jacobian(kind, SHAPE)
    value, gradients = exact(block, x)
    assert float(value) < -0.8
    assert float(value - exact(block, x, 2)[0]) < -0.03
    # Convex potential layers bend little where their Jacobian is as large as here.
    assert float(gradients[0].abs().max()) > (0.03 if kind == "potential" else 0.1)
    for name, gradient in zip((name for name, _ in block.named_parameters()), gradients[1:], strict=True):
        if "project.weight" in name:
            assert float(gradient.abs().max()) > 1e-4


ESTIMATORS_AND_GRADIENTS = [*((name, True) for name in ESTIMATORS), *((name, False) for name in BOTH_LAWS_AND_PROBES)]
SLOW_SERIES = ("geometric, gaussian", False)


@pytest.mark.parametrize(
    ("kind", "name", "neumann"),
    [
        slow_if(
            (name, neumann) == SLOW_SERIES or (kind not in DRAWN and (name not in BOTH_LAWS_AND_PROBES or not neumann)),
            *(kind, name, neumann),
        )
        for kind in BLOCK_KINDS
        for name, neumann in ESTIMATORS_AND_GRADIENTS
    ],
)
def test_value_and_input_gradient_are_unbiased(kind: str, name: str, neumann: bool) -> None:
    block, x = block_with_one_signed_jacobian(kind, SHAPE)
    values, gradients = estimates(block, x, ESTIMATORS[name], neumann)
    value, (gradient, *_) = exact(block, x)
    assert within(values, value)
    assert within(gradients, gradient)


@kinds_and_gradients
def test_parameter_gradients_are_unbiased(kind: str, neumann: bool) -> None:
    """50 means of 200 draws each."""
    block, x = block_with_one_signed_jacobian(kind, SHAPE)
    parameters = list(block.parameters())
    estimator = ESTIMATORS["geometric, rademacher" if neumann else "poisson, rademacher"]
    torch.manual_seed(8)
    means = []
    for _ in range(50):
        many = x.expand(DRAWS // 50, *SHAPE).clone().requires_grad_()
        weighted_probe = estimator.weighted_probe(many, per_sample=True)
        if neumann:
            y, _, vector = value_and_neumann(block.branch, many, weighted_probe)
            value = surrogate(y, many, weighted_probe.probe, vector)
        else:
            _, value = value_and_series(block.branch, many, [weighted_probe])
        grads = torch.autograd.grad(value.mean(), parameters, allow_unused=True, materialize_grads=True)
        means.append(torch.cat([g.flatten() for g in grads]))
    expected = torch.cat(exact(block, x)[1][1:])
    assert float(expected.abs().max()) > 5e-3
    assert within(torch.stack(means), expected)


@kinds_and_gradients
@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
def test_a_truncated_series_is_biased_by_its_remainder(kind: str, probe: str, neumann: bool) -> None:
    """All draws cut at 2 terms. The Neumann gradient of n terms is that of n + 1 terms of the series."""
    block, x = block_with_one_signed_jacobian(kind, SHAPE)
    terms = 2
    estimator = RouletteEstimator(terms, "poisson", 2.0, probe)  # type: ignore[arg-type]

    def cut(weighted_probe: WeightedProbe) -> WeightedProbe:
        return WeightedProbe(weighted_probe.probe, weighted_probe.weights[:terms])

    values, gradients = estimates(block, x, estimator, neumann, cut)
    assert within(values, exact(block, x, terms)[0])
    assert within(gradients, exact(block, x, terms + neumann)[1][0])
    if probe == "rademacher":  # the noise of Gaussian probes hides the smallest of the remainders
        assert not within(values, exact(block, x)[0])


def faulty(weighted_probe: WeightedProbe, factor: Callable[[int], float]) -> WeightedProbe:
    """The draw with the weight of term k = 1, 2, ... multiplied by factor(k)."""
    factors = [factor(k) for k in range(1, len(weighted_probe.weights) + 1)]
    return WeightedProbe(
        weighted_probe.probe,
        weighted_probe.weights * torch.tensor(factors, dtype=weighted_probe.weights.dtype).view(-1, 1),
    )


FAULTS: dict[str, Callable[[RouletteEstimator], Change]] = {
    "not divided by the probability": lambda e: lambda d: faulty(d, lambda k: e.tail(k - e.exact_terms)),
    "probability of one length more": lambda e: (
        lambda d: faulty(d, lambda k: e.tail(k - e.exact_terms) / e.tail(k - e.exact_terms + (k > e.exact_terms)))
    ),
    "probability of one length less": lambda e: (
        lambda d: faulty(d, lambda k: e.tail(k - e.exact_terms) / e.tail(k - e.exact_terms - 1))
    ),
    "1/k forgotten": lambda e: lambda d: faulty(d, lambda k: k),
    "1/k twice": lambda e: lambda d: faulty(d, lambda k: 1 / k),
    "no change of sign": lambda e: lambda d: faulty(d, lambda k: (-1) ** (k + 1)),
    "every sign wrong": lambda e: lambda d: faulty(d, lambda k: -1),
    "last term lost": lambda e: lambda d: WeightedProbe(d.probe, d.weights * (d.weights.roll(-1, 0) > 0)),
    "probe too long": lambda e: lambda d: WeightedProbe(1.05 * d.probe, d.weights),
}


@pytest.mark.parametrize("name", [slow_if(name not in WITH_EXACT_TERMS, name) for name in ESTIMATORS])
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_detected(name: str, fault: str) -> None:
    """Same block, draws, seed and width as in the tests above, value and gradient each for itself."""
    block, x = block_with_one_signed_jacobian("conv", SHAPE)
    estimator = ESTIMATORS[name]
    values, gradients = estimates(block, x, estimator, True, FAULTS[fault](estimator))
    value, (gradient, *_) = exact(block, x)
    assert not within(values, value)
    assert not within(gradients, gradient)


@kinds_and_gradients
def test_a_planted_fault_is_detected_in_every_block(kind: str, neumann: bool) -> None:
    block, x = block_with_one_signed_jacobian(kind, SHAPE)
    estimator = ESTIMATORS["poisson, rademacher"]
    fault = FAULTS["not divided by the probability"](estimator)
    # The gradient of attention alone changes so little by the fault that more draws are needed.
    draws = 4 * DRAWS if kind == "l2, block" else DRAWS
    values, gradients = estimates(block, x, estimator, neumann, fault, draws)
    value, (gradient, *_) = exact(block, x)
    assert not within(values, value)
    assert not within(gradients, gradient)


@pytest.mark.parametrize(("name", "neumann"), [slow_if(one == SLOW_SERIES, *one) for one in ESTIMATORS_AND_GRADIENTS])
def test_one_length_per_batch_is_unbiased_too(name: str, neumann: bool) -> None:
    """The block in training mode: value and all gradients of 500 batches of 20 draws."""
    block, x = block_with_one_signed_jacobian("conv", SHAPE)
    e = ESTIMATORS[name]
    log_det = TrainingLogDetConfig(
        exact_terms=e.exact_terms,
        distribution=e.distribution,
        parameter=e.parameter,
        probe=e.probe,
        neumann_gradient=neumann,
    )
    training = ResidualBlock(block.branch, SHAPE, log_det, EvaluationLogDetConfig()).train()
    torch.manual_seed(9)
    means = []
    for _ in range(500):
        leaf = x.clone().requires_grad_()
        value = training(leaf.expand(DRAWS // 500, *SHAPE))[1].mean()
        grads = torch.autograd.grad(value, [leaf, *block.parameters()], allow_unused=True, materialize_grads=True)
        means.append(torch.cat([value.detach().view(1), *[g.flatten() for g in grads]]))
    value, gradients = exact(block, x)
    assert within(torch.stack(means), torch.cat([value.view(1), *gradients]))


@every_estimator
def test_weights_have_mean_one(name: str) -> None:
    estimator = ESTIMATORS[name]
    torch.manual_seed(10)
    weighted_probe = estimator.weighted_probe(torch.zeros(200000, 1, dtype=torch.float64), per_sample=True)
    for k in range(estimator.exact_terms + 3):
        assert within(weighted_probe.weights[k], torch.ones((), dtype=torch.float64))


@every_kind
@both_gradients
def test_memory_efficient_blocks_have_the_same_gradients(kind: str, neumann: bool) -> None:
    torch.manual_seed(0)
    block = bring_norms_to_limits(make_residual_block(SHAPE, **BLOCK_KINDS[kind])).train()
    x = torch.randn(5, *SHAPE, dtype=torch.float64)
    weight_y, weight_l = torch.randn(5, *SHAPE, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    results = []
    for efficient in (True, False):
        block.training_log_det = TrainingLogDetConfig(neumann_gradient=neumann, memory_efficient=efficient)
        leaf = x.clone().requires_grad_()
        torch.manual_seed(3)
        y, value = block(leaf)
        block.zero_grad()
        ((y * weight_y).sum() + (value * weight_l).sum()).backward()
        results.append([y, value, leaf.grad, *[p.grad for p in block.parameters()]])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("grad", [True, False])
def test_evaluation_mode_with_and_without_gradient(grad: bool) -> None:
    block = make_residual_block(SHAPE, **with_attention("l2")).eval()
    x = torch.randn(4, *SHAPE, dtype=torch.float64)
    with torch.set_grad_enabled(grad):
        torch.manual_seed(1)
        _, value = block(x)
    assert value.requires_grad == grad
    torch.manual_seed(1)
    with torch.no_grad():
        torch.testing.assert_close(block(x)[1], value.detach())


def test_evaluation_estimates_of_different_samples_are_independent() -> None:
    """Lengths per sample: the correlation of two samples' estimates vanishes."""
    signed_block, x = block_with_one_signed_jacobian("conv", SHAPE)
    log_det = EvaluationLogDetConfig(exact_terms=0, distribution="geometric", parameter=0.3)
    block = ResidualBlock(signed_block.branch, SHAPE, TrainingLogDetConfig(), log_det).eval()
    torch.manual_seed(5)
    with torch.no_grad():
        pairs = torch.stack([block(x.expand(2, *SHAPE))[1] for _ in range(1000)])
    assert abs(float(torch.corrcoef(pairs.T)[0, 1])) < 4 / math.sqrt(1000)


@every_kind
@pytest.mark.parametrize("grad", [True, False])
def test_evaluation_mode_averages_the_probes(kind: str, grad: bool) -> None:
    """As many probes as values make the first term, all there is here, exact: it is the trace, whatever is drawn."""
    signed_block, x = block_with_one_signed_jacobian(kind, SHAPE)
    log_det = EvaluationLogDetConfig(exact_terms=1, distribution="poisson", parameter=1e-9, probes=4)
    block = ResidualBlock(signed_block.branch, SHAPE, TrainingLogDetConfig(), log_det).eval()
    trace = jacobian(block.branch, x).trace()
    torch.manual_seed(6)
    with torch.set_grad_enabled(grad):
        _, value = block(x.expand(9, *SHAPE))
    torch.testing.assert_close(value.detach(), trace.expand(9), rtol=1e-10, atol=1e-12)


@every_kind
def test_evaluation_mode_with_probes_is_unbiased(kind: str) -> None:
    """The block itself, with lengths of its own for each sample."""
    signed_block, x = block_with_one_signed_jacobian(kind, SHAPE)
    log_det = EvaluationLogDetConfig(exact_terms=2, distribution="geometric", parameter=0.4, probes=2)
    block = ResidualBlock(signed_block.branch, SHAPE, TrainingLogDetConfig(), log_det).eval()
    torch.manual_seed(11)
    with torch.no_grad():
        values = block(x.expand(DRAWS, *SHAPE))[1]
    assert float(values.std()) > 1e-3
    assert within(values, exact(block, x)[0])
