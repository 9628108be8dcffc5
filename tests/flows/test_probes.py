"""Probes that share a pattern of signs: which errors cancel exactly, and that their estimates are unbiased."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from acf.flows.logdet import RouletteEstimator, WeightedProbe, exact_log_det, value_and_neumann
from acf.flows.probes import colours, patterns
from acf.settings.config import EvaluationLogDetConfig, TrainingLogDetConfig
from tests.building_blocks.blocks import BLOCK_KINDS, block_with_one_signed_jacobian

SHAPES = [(1, 8, 8), (4, 4, 4), (16, 3, 5), (3, 4, 4), (6, 2, 3), (1, 1, 7), (1, 1, 1), (12,), (2, 3)]
DRAWS = 10_000
SIGMAS = 4.5
NO_MORE = 1e-9  # rate of Poisson lengths that are 0


@pytest.mark.parametrize("shape", SHAPES)
def test_colours_are_different(shape: tuple[int, ...]) -> None:
    colour = colours(shape)
    assert colour.shape == shape
    assert len(colour.unique()) == math.prod(shape)
    assert int(colour.min()) >= 0


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 4, 6), (5, 3, 3)])
def test_neighbours_differ_in_the_lowest_digit(shape: tuple[int, ...]) -> None:
    colour = colours(shape)
    for direction in range(3):
        near = colour.narrow(direction, 1, shape[direction] - 1) if shape[direction] > 1 else colour[:0]
        assert ((near - colour.narrow(direction, 0, near.shape[direction])) % 2 == 1).all()


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 4, 4)])
def test_squeezed_values_keep_their_colours(shape: tuple[int, ...]) -> None:
    once = F.pixel_unshuffle(colours(shape), 2)
    assert torch.equal(colours(tuple(once.shape)), once)
    twice = F.pixel_unshuffle(once, 2)
    assert torch.equal(colours(tuple(twice.shape)), twice)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 2, 4, 8, 16])
def test_patterns_are_orthogonal_over_different_colours(shape: tuple[int, ...], count: int) -> None:
    h = patterns(count, shape).flatten(1)
    assert (h.abs() == 1).all()
    assert (h[0] == 1).all()
    colour = colours(shape).flatten() % count
    assert torch.equal(h.T @ h, count * (colour[:, None] == colour).long())
    assert torch.equal(patterns(count, shape), patterns(2 * count, shape)[:count])


def linear(j: Tensor, shape: tuple[int, ...], x: Tensor, weighted_probes: list[WeightedProbe]) -> Tensor:
    """Mean of the estimates (B,) for g(x) = J x."""

    def g(value: Tensor) -> Tensor:
        return (value.flatten(1) @ j.T).view(-1, *shape)

    return torch.stack([value_and_neumann(g, x, probe)[1] for probe in weighted_probes]).mean(0)


def contraction(values: int, norm: float = 0.6) -> Tensor:
    """A matrix far from symmetric, of this spectral norm, with a large trace."""
    j = torch.randn(values, values, dtype=torch.float64) - torch.eye(values, dtype=torch.float64)
    return j * (norm / torch.linalg.matrix_norm(j, 2))


def with_probe(weighted_probes: list[WeightedProbe], v: Tensor) -> list[WeightedProbe]:
    """The same draws with the probe v in the place of the one drawn."""
    return [WeightedProbe(v * one.probe * weighted_probes[0].probe, one.weights) for one in weighted_probes]


def all_signs(shape: tuple[int, ...]) -> Tensor:
    signs = list(itertools.product((-1.0, 1.0), repeat=math.prod(shape)))
    return torch.tensor(signs, dtype=torch.float64).view(-1, *shape)


@pytest.mark.parametrize("shape", [(1, 2, 3), (4, 1, 2), (7,)])
@pytest.mark.parametrize("probes", [1, 2, 3, 4, 5, 8, 19])
def test_the_mean_over_all_sign_vectors_is_exact(shape: tuple[int, ...], probes: int) -> None:
    """For a Jacobian of any form, and any number of probes: no chance is left, 60 terms leave less than 0.6^60."""
    torch.manual_seed(0)
    j = contraction(math.prod(shape))
    v = all_signs(shape)
    x = torch.zeros_like(v).requires_grad_()
    weighted_probes = RouletteEstimator(60, "poisson", NO_MORE, "rademacher", probes).weighted_probes(
        x, per_sample=True
    )
    assert len(weighted_probes) == probes
    found = linear(j, shape, x, with_probe(weighted_probes, v)).mean()
    expected = torch.linalg.slogdet(torch.eye(len(j), dtype=j.dtype) + j).logabsdet
    assert float(expected) < -0.3
    assert float(found) == pytest.approx(float(expected), abs=1e-10)


@pytest.mark.parametrize("probes", [1, 2, 4, 8])
def test_the_variance_that_is_left_is_that_between_values_of_one_colour(probes: int) -> None:
    """Of the first term: 2 times the sum of squares of the symmetric part, over pairs of one colour modulo P."""
    shape = (1, 2, 4)
    torch.manual_seed(1)
    j = contraction(8)
    v = all_signs(shape)
    x = torch.zeros_like(v).requires_grad_()
    weighted_probes = RouletteEstimator(1, "poisson", NO_MORE, "rademacher", probes).weighted_probes(x, per_sample=True)
    found = linear(j, shape, x, with_probe(weighted_probes, v)).var(correction=0)
    colour = colours(shape).flatten() % probes
    pairs = (colour[:, None] == colour) & ~torch.eye(8, dtype=torch.bool)
    expected = 2 * (((j + j.T) / 2).square() * pairs).sum()
    assert (float(expected) > 1e-3) == (probes < 8)
    assert float(found) == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize("shape", [(1, 4, 4), (4, 2, 2)])
def test_couplings_between_colours_cancel_exactly(shape: tuple[int, ...]) -> None:
    torch.manual_seed(2)
    colour = colours(shape).flatten() % 4
    j = contraction(16) * ((colour[:, None] != colour) | torch.eye(16, dtype=torch.bool))
    x = torch.zeros(50, *shape, dtype=torch.float64, requires_grad=True)
    for probes, cancelled in ((4, True), (2, False)):
        weighted_probes = RouletteEstimator(1, "poisson", NO_MORE, "rademacher", probes).weighted_probes(
            x, per_sample=True
        )
        errors = linear(j, shape, x, weighted_probes) - j.trace()
        assert (float(errors.abs().max()) < 1e-12) == cancelled


DRAWN = ("conv", "fc", "l2, block")  # a mean over probes knows nothing of the kind of block


@pytest.mark.parametrize(
    ("kind", "probes"),
    [
        *(pytest.param(kind, 2, marks=() if kind in DRAWN else pytest.mark.slow) for kind in BLOCK_KINDS),
        *(("conv", 3), ("conv", 8)),
    ],
)
def test_estimates_are_unbiased(kind: str, probes: int) -> None:
    """Probes and lengths random, for blocks of every kind against their dense Jacobians."""
    block, x = block_with_one_signed_jacobian(kind, (1, 2, 2))
    estimator = RouletteEstimator(2, "geometric", 0.4, "rademacher", probes)
    torch.manual_seed(3)
    many = x.expand(DRAWS, *x.shape[1:]).clone().requires_grad_()
    weighted_probes = estimator.weighted_probes(many, per_sample=True)
    values = torch.stack([value_and_neumann(block.branch, many, probe)[1] for probe in weighted_probes])
    exact = float(exact_log_det(block.branch, x).detach())
    assert within(values.mean(0), exact)
    assert float(values.mean(0).std()) / math.sqrt(DRAWS) < 0.02 * abs(exact)
    assert not within(values[0], exact)  # the first draw alone stands for the others' further terms too


def within(values: Tensor, exact: float) -> bool:
    error = float(values.std()) / math.sqrt(len(values))
    return abs(float(values.mean()) - exact) <= SIGMAS * error


@pytest.mark.parametrize(
    ("probes", "exact_terms", "expected"),
    [
        (1, 3, [3]),
        (2, 3, [3, 1]),
        (4, 4, [4, 2, 1, 1]),
        (9, 2, [2, 2, 2, 2, 1, 1, 1, 1, 1]),
        (16, 4, [4, 4, 3, 3, *[2] * 4, *[1] * 8]),
    ],
)
def test_later_terms_have_fewer_probes(probes: int, exact_terms: int, expected: list[int]) -> None:
    x = torch.zeros(3, 1, 2, 2, dtype=torch.float64)
    weighted_probes = RouletteEstimator(exact_terms, "poisson", NO_MORE, "rademacher", probes).weighted_probes(
        x, per_sample=True
    )
    assert [len(one.weights) for one in weighted_probes] == expected
    for k in range(exact_terms):
        total = sum(float(one.weights[k].max()) for one in weighted_probes if len(one.weights) > k)
        assert total == pytest.approx(probes)


@pytest.mark.parametrize("law", ["rademacher", "gaussian"])
def test_every_probe_has_the_law_of_the_first(law: str) -> None:
    torch.manual_seed(4)
    weighted_probes = RouletteEstimator(1, "poisson", 1.0, law, 4).weighted_probes(
        torch.zeros(100_000, 1, 1, 3), per_sample=True
    )
    for weighted_probe in weighted_probes:
        v = weighted_probe.probe.flatten(1)
        assert torch.allclose(v.T @ v / len(v), torch.eye(3), atol=0.025)
        assert (v.abs() == 1).all() == (law == "rademacher")


def test_one_probe_is_a_plain_draw() -> None:
    estimator, x = RouletteEstimator(2, "geometric", 0.4, "rademacher"), torch.zeros(9, 1, 2, 2)
    torch.manual_seed(5)
    plain = estimator.weighted_probe(x, per_sample=True)
    torch.manual_seed(5)
    (shared,) = estimator.weighted_probes(x, per_sample=True)
    assert torch.equal(plain.probe, shared.probe)
    assert torch.equal(plain.weights, shared.weights)


def test_samples_have_their_own_lengths_and_probes() -> None:
    torch.manual_seed(6)
    j = contraction(4)
    x = torch.zeros(20_000, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    weighted_probes = RouletteEstimator(1, "geometric", 0.3, "rademacher", 2).weighted_probes(x, per_sample=True)
    lengths = (weighted_probes[0].weights > 0).double().sum(0).view(-1, 2)
    values = linear(j, (1, 2, 2), x, weighted_probes).view(-1, 2)
    for pairs in (lengths, values):
        assert float(pairs.std()) > 0.01
        assert abs(float(torch.corrcoef(pairs.T)[0, 1])) < 4 / math.sqrt(len(pairs))


def test_the_number_of_probes_is_read_from_the_configuration() -> None:
    several = EvaluationLogDetConfig(exact_terms=2, probes=4)
    assert RouletteEstimator.from_config(several).probes == 4
    assert RouletteEstimator.from_config(TrainingLogDetConfig()).probes == 1
    with pytest.raises(ValueError, match="exact_terms must be at least 1"):
        EvaluationLogDetConfig(exact_terms=0, probes=2)
