"""Estimators of the log-determinant: exact means over all probes, laws of lengths and probes, means of both modes."""

import math

import pytest
import torch
from scipy import stats
from scipy.linalg import hadamard
from torch import Tensor

from acf.flows.logdet import (
    RouletteEstimator,
    WeightedProbe,
    exact_log_det,
    surrogate,
    value_and_neumann,
    value_and_series,
)
from acf.flows.residual import ResidualBlock
from acf.registry import ATTENTIONS
from acf.settings.config import EvaluationLogDetConfig, TrainingLogDetConfig
from tests.building_blocks.blocks import BLOCK_KINDS, block_with_one_signed_jacobian, make_residual_block
from tests.building_blocks.jacobians import jacobian
from tests.building_blocks.settings import with_attention
from tests.building_blocks.weights import align_maps

SHAPE = (1, 2, 3)
ALIGNED = {
    "conv": {},
    "conv, elu": {"activation": "elu"},
    "fc": {"branch": "fc"},
    **{name: {"activation": "elu", **with_attention(name)} for name in sorted(ATTENTIONS)},
}
# Branches whose first and last map cannot be aligned are trained.
every_kind = pytest.mark.parametrize("kind", [*ALIGNED, *(kind for kind in BLOCK_KINDS if kind not in ALIGNED)])


def block_with_slow_series(kind: str, sign: int = 1) -> tuple[ResidualBlock, Tensor]:
    """A block whose series of the log-determinant converges slowly at x (1, ...), and x."""
    if kind not in ALIGNED:
        return block_with_one_signed_jacobian(kind, SHAPE, sign)
    torch.manual_seed(0)
    made = align_maps(make_residual_block(SHAPE, **ALIGNED[kind]), sign)
    return made, 0.5 * torch.randn(1, *SHAPE, dtype=torch.float64)


def all_probes() -> Tensor:
    """Eight vectors of signs whose mean of v v^T is the identity, as that of one Rademacher draw."""
    signs = torch.tensor(hadamard(8)[:, :6], dtype=torch.float64)
    assert torch.equal(signs.T @ signs / 8, torch.eye(6, dtype=torch.float64))
    return signs.view(-1, *SHAPE)


def flat(gradients: tuple[Tensor | None, ...]) -> Tensor:
    return torch.cat([g.flatten() for g in gradients if g is not None])


@every_kind
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("neumann", [True, False])
def test_all_probes_and_a_long_series_give_the_exact_value_and_gradients(kind, neumann, sign):
    made, x = block_with_slow_series(kind, sign)
    leaf = x.clone().requires_grad_(True)
    # The mean over the probes is exact; as many terms as leave a ten-billionth, or 250, which leave less than 0.95^250.
    norm = float(torch.linalg.matrix_norm(jacobian(made.branch, x), 2))
    terms = min(250, math.ceil(math.log(1e-10) / math.log(norm)))
    weighted_probe = WeightedProbe(all_probes(), torch.ones(terms, 1, dtype=torch.float64))
    many = leaf.expand(8, *SHAPE)
    if neumann:
        y, value, vector = value_and_neumann(made.branch, many, weighted_probe)
        differentiable = surrogate(y, many, weighted_probe.probe, vector)
    else:
        y, value = value_and_series(made.branch, many, [weighted_probe])
        differentiable = value
    inputs = (leaf, *made.branch.parameters())
    found = flat(torch.autograd.grad(differentiable.mean(), inputs, allow_unused=True, materialize_grads=True))
    x_again = x.clone().requires_grad_(True)
    exact = log_det_with_graph(made, x_again)
    expected = flat(
        torch.autograd.grad(exact, (x_again, *made.branch.parameters()), allow_unused=True, materialize_grads=True)
    )
    assert float(expected.abs().max()) > 1e-2
    assert sign * float(exact.detach()) > 0.4
    assert float(value.mean().detach()) == pytest.approx(float(exact.detach()), abs=1e-6)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


def log_det_with_graph(made: ResidualBlock, x: Tensor) -> Tensor:
    """From the Jacobian of the whole block, with graph to x and to the weights."""
    return torch.linalg.slogdet(jacobian(made.transform, x, create_graph=True)).logabsdet


@every_kind
def test_exact_log_det(kind):
    made, x = block_with_slow_series(kind)
    batch = torch.cat([x, x + 1, x - 2])
    expected = torch.stack([log_det_with_graph(made, t) for t in batch.split(1)])
    assert torch.allclose(exact_log_det(made.branch, batch), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("law", "parameter"), [("poisson", 2.0), ("poisson", 0.3), ("geometric", 0.1), ("geometric", 0.5)]
)
def test_tails_are_those_of_the_lengths(law, parameter):
    estimator = RouletteEstimator(0, law, parameter, "rademacher")
    reference = stats.poisson(parameter) if law == "poisson" else stats.geom(parameter, loc=-1)
    for k in range(30):
        assert estimator.tail(k) == pytest.approx(float(reference.sf(k - 1)), rel=1e-9)
    torch.manual_seed(0)
    weights = estimator.weighted_probe(torch.zeros(50_000, 1), per_sample=True).weights
    reached = (weights > 0).double().mean(1)
    for k in range(min(5, len(reached))):
        p = float(reference.sf(k))
        assert abs(float(reached[k]) - p) <= 4 * (p * (1 - p) / 50_000) ** 0.5


@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
def test_probes_have_the_identity_as_second_moment(probe):
    torch.manual_seed(0)
    v = RouletteEstimator(1, "poisson", 1.0, probe).weighted_probe(torch.zeros(200_000, 3), per_sample=True).probe
    assert torch.allclose(v.T @ v / 200_000, torch.eye(3), atol=0.02)
    assert (v.abs() == 1).all() == (probe == "rademacher")


@torch.no_grad()
def mean_is_exact(made: ResidualBlock, x: Tensor) -> bool:
    """Whether the mean of 20000 estimates lies within 4 standard errors of the exact value, each at most 4 % of it."""
    exact = float(exact_log_det(made.branch, x))
    torch.manual_seed(1)
    # In training mode one length serves a batch, so only the batches' means are independent.
    batch = 50 if made.training else 2000
    values = torch.cat([made(x.expand(batch, *SHAPE))[1] for _ in range(20_000 // batch)])
    means = values.view(400, 50).mean(1)
    error = float(means.std()) / len(means) ** 0.5
    assert error < 0.04 * abs(exact)
    return abs(float(means.mean()) - exact) <= 4 * error


def estimated(kind: str, training: bool, **settings: object) -> tuple[ResidualBlock, Tensor]:
    made, x = block_with_slow_series(kind)
    made.training_log_det = TrainingLogDetConfig(**settings)
    made.evaluation_log_det = EvaluationLogDetConfig(**settings)
    return made.train(training), x


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("kind", "exact_terms", "law", "parameter", "probe"),
    [
        ("conv", 0, "geometric", 0.2, "rademacher"),
        ("conv, elu", 2, "geometric", 0.2, "gaussian"),
        ("conv", 0, "poisson", 2.0, "gaussian"),
        ("fc", 5, "poisson", 2.0, "rademacher"),
        ("l2", 0, "geometric", 0.3, "gaussian"),
        ("dot", 2, "poisson", 2.0, "rademacher"),
    ],
)
def test_both_modes_of_the_block_are_unbiased(kind, training, exact_terms, law, parameter, probe):
    settings = {"exact_terms": exact_terms, "distribution": law, "parameter": parameter, "probe": probe}
    assert mean_is_exact(*estimated(kind, training, **settings))


@pytest.mark.parametrize("training", [True, False])
def test_wrong_tails_are_noticed(training, monkeypatch):
    right = RouletteEstimator.tail
    monkeypatch.setattr(RouletteEstimator, "tail", lambda self, k: right(self, k + 1))
    made, x = estimated("conv, elu", training, exact_terms=0, distribution="geometric", parameter=0.2)
    assert not mean_is_exact(made, x)


@pytest.mark.parametrize("neumann", [True, False])
@pytest.mark.parametrize("efficient", [True, False])
@pytest.mark.parametrize("kernels", [[3], [3, 3]])
def test_a_draw_of_no_terms_has_gradients(neumann, efficient, kernels):
    torch.manual_seed(0)
    made = make_residual_block(SHAPE, leading_activation=False, kernels=kernels).train()
    made.training_log_det = TrainingLogDetConfig(
        exact_terms=0, parameter=1e-9, neumann_gradient=neumann, memory_efficient=efficient
    )
    x = torch.randn(3, *SHAPE, dtype=torch.float64, requires_grad=True)
    y, value = made(x)
    (y.sum() + value.sum()).backward()
    assert torch.equal(value, torch.zeros_like(value))
    assert x.grad.isfinite().all()
    assert all(p.grad is not None for p in made.parameters())


def test_frozen_parameters_and_inputs_without_gradient():
    made, x = block_with_slow_series("l2")
    made.train()
    made.branch[1].bias.requires_grad_(False)
    y, value = made(x)
    (y.sum() + value.sum()).backward()
    assert made.branch[1].bias.grad is None
    assert all(p.grad is not None for p in made.parameters() if p.requires_grad)
