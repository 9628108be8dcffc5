"""Toy densities: samples have the density that is said, which adds up to one."""

import math

import pytest
import torch

from acf.data.toy_densities import TOYS, toy_density
from acf.data.toy_density import HALF_WIDTH, ToyDensity, square
from acf.errors import ConfigError

COARSE = 0.2
"""Step of a grid on which sums are integrals to 1e-3, where 0.1 gives rounding."""


@pytest.fixture(params=TOYS)
def toy(request: pytest.FixtureRequest) -> ToyDensity:
    return TOYS[request.param]


def cells(toy: ToyDensity, conditional: bool) -> torch.Tensor:
    """Probability of each cell of side 1, (12, 12), or of every part (parts, 12, 12), by the midpoint rule."""
    n = 12 if toy is TOYS["rings"] else 6  # whose noise is narrow
    fine = torch.arange(-HALF_WIDTH + 0.5 / n, HALF_WIDTH, 1 / n, dtype=torch.float64)
    density = toy.part_log_probs(torch.cartesian_prod(fine, fine)).exp().T.reshape(-1, 12, n, 12, n)
    of_parts = density.sum((2, 4)) / n**2
    return of_parts if conditional else of_parts.mean(0)


def test_samples_have_the_density_of_their_part(toy: ToyDensity) -> None:
    """Counts of 10,000 points in cells of side 1 agree with the density's integrals: chi-squared below 6 sigma."""
    x, labels = toy.sample(10_000, torch.Generator().manual_seed(0))
    assert x.abs().max() < HALF_WIDTH
    expected = cells(toy, conditional=True)
    assert torch.allclose(expected.sum((1, 2)), torch.ones(toy.parts).double(), atol=1e-3)
    place = (x + HALF_WIDTH).floor().long()
    for part in range(toy.parts):
        own = place[labels == part]
        counts = torch.zeros(12, 12, dtype=torch.float64)
        counts.index_put_((own[:, 0], own[:, 1]), torch.ones(len(own)).double(), accumulate=True)
        there = expected[part] * len(own)
        often = there > 5
        squares = (counts - there)[often].square() / there[often]
        rest, rest_there = counts[~often].sum(), there[~often].sum()
        degrees = int(often.sum())
        assert squares.sum() < degrees + 6 * math.sqrt(2 * degrees) + 1
        assert (rest - rest_there).abs() < 6 * math.sqrt(rest_there + 1)
    numbers = labels.bincount(minlength=toy.parts)
    assert (numbers - 10_000 / toy.parts).abs().max() < 6 * math.sqrt(10_000 / toy.parts)


def test_the_entropy_is_the_mean_of_minus_the_log_density(toy: ToyDensity) -> None:
    x, labels = toy.sample(300, torch.Generator().manual_seed(1))
    for given, of_parts in ((None, False), (labels, True)):
        values = -toy.log_prob(x, given)
        error = float(values.std()) / math.sqrt(len(values))
        assert float(values.mean()) == pytest.approx(toy.entropy(of_parts, step=COARSE), abs=5 * error + 2e-3)


def test_the_board_is_uniform_and_a_gaussian_is_one() -> None:
    x = torch.tensor([[0.5, 0.5], [0.5, -0.5], [-3.9, -3.9], [4.1, 4.1]])
    assert TOYS["checkerboard"].log_prob(x).exp().tolist() == pytest.approx([1 / 32, 0, 1 / 32, 0])
    assert TOYS["checkerboard"].entropy() == math.log(32)
    gaussian = math.log(2 * math.pi * math.e * (0.5 / 1.414) ** 2)
    assert TOYS["8gaussians"].entropy(of_parts=True) == pytest.approx(gaussian, abs=1e-6)


def test_quadrature_has_converged() -> None:
    """A finer grid and more nodes along the curve change nothing."""
    x, _ = TOYS["2spirals"].sample(20, torch.Generator().manual_seed(2))
    from acf.data import toy_densities

    coarse = TOYS["2spirals"].log_prob(x)
    nodes, weights = toy_densities._gauss_legendre(900)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy_densities, "_gauss_legendre", lambda _: (nodes, weights))
        assert torch.allclose(TOYS["2spirals"].log_prob(x), coarse, atol=1e-9)
    rings = TOYS["rings"]
    assert rings.entropy(step=0.1) == pytest.approx(rings.entropy(step=0.06), abs=1e-6)


def test_the_same_seed_has_the_same_points(toy: ToyDensity) -> None:
    one, other, third = (toy.sample(5, torch.Generator().manual_seed(seed))[0] for seed in (3, 3, 4))
    assert one.equal(other)
    assert not one.equal(third)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown toy 'moon'; known: 8gaussians, moons"):
        toy_density("moon")


def test_the_grid_is_a_square_about_zero() -> None:
    grid = square(3.0)
    assert len(grid) == 25
    assert grid[1].tolist() == [-6, -3]
    assert grid.mean(0).tolist() == [0, 0]
