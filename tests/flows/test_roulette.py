"""Roulette estimators: means of value and gradient within confidence intervals of the exact ones."""

import copy
import math
from collections.abc import Callable
from functools import cache

import pytest
import torch
from cases import attention, config, residual, strengthen
from scipy.integrate import simpson
from torch import Tensor

import acf
from acf.config import EvaluationLogDetConfig, TrainingLogDetConfig
from acf.flows.logdet import (
    Draw,
    RouletteEstimator,
    exact_log_det,
    jacobian,
    series,
    surrogate,
    value_and_neumann,
)
from acf.flows.residual import ResidualBlock
from acf.lipschitz.branch import Branch
from acf.lipschitz.normalised import Normalised

DRAWS = 20000
SIGMAS = 4.5
SHAPE = (2, 2, 2)

BRANCHES: dict[str, Callable[[], ResidualBlock]] = {
    "conv": lambda: residual(SHAPE),
    "fc": lambda: residual(SHAPE, dense=True),
    "l2": lambda: residual(SHAPE, attention=attention("l2")),
    "dot": lambda: residual(SHAPE, attention=attention("dot")),
}
ESTIMATORS = {
    "poisson-2": RouletteEstimator(2, "poisson", 2.0, "rademacher"),
    "poisson-0": RouletteEstimator(0, "poisson", 3.0, "rademacher"),
    "geometric-2": RouletteEstimator(2, "geometric", 0.4, "gaussian"),
    "geometric-5": RouletteEstimator(5, "geometric", 0.5, "rademacher"),
}
each_branch = pytest.mark.parametrize("make", BRANCHES.values(), ids=BRANCHES.keys())
each_estimator = pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS.keys())


@cache
def prepared(make: Callable[[], ResidualBlock]) -> tuple[Branch, Tensor]:
    """A branch trained until its Jacobian at x has norm 0.6, so that terms of high order count."""
    torch.manual_seed(0)
    block = make()
    strengthen(block)
    branch = block.branch
    x = torch.randn(1, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    optimiser = torch.optim.Adam(branch.parameters(), lr=0.1)
    for _ in range(300):
        dense = jacobian(branch, x)
        if float(torch.linalg.matrix_norm(dense.detach(), 2)) > 0.6:
            break
        optimiser.zero_grad()
        dense.diagonal(dim1=1, dim2=2).sum().backward()  # a negative trace: |log det| is larger there
        optimiser.step()
        for layer in branch.modules():
            if isinstance(layer, Normalised):
                layer.renormalise(20)
    assert float(exact_log_det(branch, x)) < -0.3
    return branch, x


def within(values: Tensor, exact: Tensor) -> bool:
    """Whether the mean over the first dimension lies within SIGMAS standard errors of `exact`, everywhere."""
    error = values.std(0) / math.sqrt(len(values))
    return bool(((values.mean(0) - exact).abs() <= SIGMAS * error + 1e-9).all())


def estimates(branch: Branch, x: Tensor, estimator: RouletteEstimator, neumann: bool) -> tuple[Tensor, Tensor]:
    """Values (DRAWS,) and gradients with respect to x (DRAWS, D), each from a draw of its own."""
    torch.manual_seed(7)
    many = x.expand(DRAWS, *SHAPE).clone().requires_grad_()
    draw = estimator.draw(many, per_sample=True)
    if neumann:
        y, value, vector = value_and_neumann(branch, many, draw)
        (gradient,) = torch.autograd.grad(surrogate(y, many, draw.probe, vector).sum(), many)
    else:
        _, value = series(branch, many, draw)
        (gradient,) = torch.autograd.grad(value.sum(), many)
    return value.detach(), gradient.flatten(1)


def exact_gradient(branch: Branch, x: Tensor) -> Tensor:
    """Gradient of log|det(I + J(x))| by central differences of the dense log-determinant."""
    step, flat = 1e-5, torch.eye(x.numel(), dtype=x.dtype).view(-1, *SHAPE)
    forward, backward = exact_log_det(branch, x + step * flat), exact_log_det(branch, x - step * flat)
    return ((forward - backward) / (2 * step)).detach()


@each_branch
@each_estimator
@pytest.mark.parametrize("neumann", [True, False], ids=["neumann", "series"])
def test_value_and_input_gradient_are_unbiased(
    make: Callable[[], ResidualBlock], estimator: RouletteEstimator, neumann: bool
) -> None:
    branch, x = prepared(make)
    values, gradients = estimates(branch, x, estimator, neumann)
    assert within(values, exact_log_det(branch, x).detach())
    assert within(gradients, exact_gradient(branch, x))


@each_branch
@pytest.mark.parametrize("neumann", [True, False], ids=["neumann", "series"])
def test_parameter_gradients_are_unbiased(make: Callable[[], ResidualBlock], neumann: bool) -> None:
    """200 means of 200 draws each, against the gradient of the dense log-determinant."""
    branch, x = prepared(make)
    parameters = list(branch.parameters())
    exact = torch.autograd.grad(exact_log_det(branch, x).sum(), parameters, allow_unused=True)
    used = [(p, g) for p, g in zip(parameters, exact, strict=True) if g is not None]
    torch.manual_seed(8)
    estimator, means = ESTIMATORS["geometric-5"], []
    for _ in range(200):
        many = x.expand(200, *SHAPE).clone().requires_grad_()
        draw = estimator.draw(many, per_sample=True)
        if neumann:
            y, _, vector = value_and_neumann(branch, many, draw)
            value = surrogate(y, many, draw.probe, vector)
        else:
            value = series(branch, many, draw)[1]
        grads = torch.autograd.grad(value.mean(), [p for p, _ in used], allow_unused=True)
        found = [torch.zeros_like(p) if g is None else g for (p, _), g in zip(used, grads, strict=True)]
        means.append(torch.cat([g.flatten() for g in found]))
    expected = torch.cat([g.flatten() for _, g in used])
    assert float(expected.abs().max()) > 1e-3
    assert within(torch.stack(means), expected)


def test_these_tests_can_fail() -> None:
    """Planted: tail probabilities shifted by one term, and a Gaussian probe of the wrong scale."""

    class Shifted(RouletteEstimator):
        def tail(self, k: int) -> float:
            return super().tail(k - 1)

    class Scaled(RouletteEstimator):
        def _probe(self, x: Tensor) -> Tensor:
            return 1.05 * torch.randn_like(x)

    branch, x = prepared(BRANCHES["conv"])
    exact = exact_log_det(branch, x).detach()
    for planted in (Shifted(0, "poisson", 2.0, "rademacher"), Scaled(2, "poisson", 2.0, "gaussian")):
        values, gradients = estimates(branch, x, planted, True)
        assert not (within(values, exact) and within(gradients, exact_gradient(branch, x)))


@each_estimator
def test_one_length_per_batch_is_unbiased_too(estimator: RouletteEstimator) -> None:
    branch, x = prepared(BRANCHES["conv"])
    torch.manual_seed(9)
    values = []
    for _ in range(3000):
        leaf = x.clone().requires_grad_()
        values.append(value_and_neumann(branch, leaf, estimator.draw(leaf, per_sample=False))[1])
    assert within(torch.cat(values), exact_log_det(branch, x).detach()[0])


@each_estimator
def test_weights_have_mean_one(estimator: RouletteEstimator) -> None:
    torch.manual_seed(10)
    draw = estimator.draw(torch.zeros(200000, 1, dtype=torch.float64), per_sample=True)
    for k in range(estimator.exact_terms + 3):
        weights = draw.weights[k]
        error = float(weights.std()) / math.sqrt(len(weights))
        assert abs(float(weights.mean()) - 1) <= 4.5 * error + 1e-12


@each_branch
@pytest.mark.parametrize("neumann", [True, False], ids=["neumann", "series"])
def test_memory_efficient_blocks_have_the_same_gradients(make: Callable[[], ResidualBlock], neumann: bool) -> None:
    torch.manual_seed(0)
    block = make().train()
    strengthen(block)
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
    block = BRANCHES["l2"]().eval()
    x = torch.randn(4, *SHAPE, dtype=torch.float64)
    with torch.set_grad_enabled(grad):
        torch.manual_seed(1)
        _, value = block(x)
    assert value.requires_grad == grad
    torch.manual_seed(1)
    with torch.no_grad():
        torch.testing.assert_close(block(x)[1], value.detach())


def test_series_converges_to_the_exact_value() -> None:
    """All terms with a full basis of probes: the series itself, no randomness."""
    branch, x = prepared(BRANCHES["dot"])
    values = x.numel()
    many = x.expand(values, *SHAPE).clone().requires_grad_()
    probes = torch.eye(values, dtype=x.dtype).view(values, *SHAPE)
    _, parts, _ = value_and_neumann(branch, many, Draw(probes, torch.ones(300, 1, dtype=x.dtype)))
    torch.testing.assert_close(parts.sum(), exact_log_det(branch, x)[0].detach(), rtol=1e-9, atol=1e-9)


def test_jacobian_is_the_dense_one() -> None:
    branch, x = prepared(BRANCHES["fc"])
    expected = torch.autograd.functional.jacobian(lambda z: branch(z).flatten(), x).flatten(1)
    torch.testing.assert_close(jacobian(branch, x)[0], expected)


@pytest.mark.parametrize("kind", ["none", "l2"])
def test_density_integrates_to_one(kind: str) -> None:
    """A flow on two values, density on a grid of the unit square with exact log-determinants."""
    torch.manual_seed(2)
    flow = acf.build(
        config((2, 1, 1), blocks=[2], kernels=[1, 1], idim=8, fc_blocks=1, actnorm=True, attention=attention(kind))
    ).double()
    strengthen(flow)
    for parameter in flow.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    flow.renormalise()
    flow.eval()
    # The density reaches beyond [0, 1): the logit's domain is that of s = alpha + (1 - 2 alpha) x in (0, 1).
    alpha, count = flow.config.logit_alpha, 601
    edge = (torch.linspace(1e-7, 1 - 1e-7, count, dtype=torch.float64) - alpha) / (1 - 2 * alpha)
    x = torch.stack(torch.meshgrid(edge, edge, indexing="ij"), -1).view(-1, 2, 1, 1)
    log_det = flow.logit(x)[1].clone()
    z = flow.logit.transform(x)
    for part in flow.bijection.scales[0].parts:
        if isinstance(part, ResidualBlock):
            log_det += exact_log_det(part.branch, z).detach()
            z = part.transform(z)
        else:
            z, more = part(z)
            log_det += more
    density = (flow.base_log_prob(z.flatten(1)) + log_det).exp().detach().view(count, count)
    total = simpson(simpson(density.numpy(), x=edge.numpy()), x=edge.numpy())
    assert total == pytest.approx(1, abs=1e-3)


def test_evaluation_estimates_of_different_samples_are_independent() -> None:
    """Lengths per sample: the correlation of two samples' estimates vanishes."""
    block = BRANCHES["conv"]().eval()
    strengthen(block)
    block.evaluation_log_det = EvaluationLogDetConfig(exact_terms=0, distribution="geometric", parameter=0.3)
    x = torch.randn(1, *SHAPE, dtype=torch.float64).expand(2, *SHAPE)
    torch.manual_seed(5)
    with torch.no_grad():
        pairs = torch.stack([block(x)[1] for _ in range(3000)])
    assert abs(float(torch.corrcoef(pairs.T)[0, 1])) < 4 / math.sqrt(3000)
    assert copy.copy(block).training is False
