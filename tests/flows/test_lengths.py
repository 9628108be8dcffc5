"""Systematic lengths of roulette: each has its law exactly, estimates keep their mean, and sums hardly vary."""

import math
from collections import Counter

import pytest
import torch
from scipy import stats

from acf.flows.logdet import RouletteEstimator

LAWS = {"poisson": 2.0, "geometric": 0.4}
every_law = pytest.mark.parametrize("law", LAWS)


def estimator_of(law: str) -> RouletteEstimator:
    return RouletteEstimator(2, law, LAWS[law], "rademacher")  # type: ignore[arg-type]


def probability(law: str, length: int) -> float:
    reference = stats.poisson(LAWS[law]) if law == "poisson" else stats.geom(LAWS[law], loc=-1)
    return float(reference.pmf(length))


@every_law
@pytest.mark.parametrize("count", [1, 3, 20])
def test_each_length_has_the_law(law: str, count: int) -> None:
    """Chi-square of the first and of the last block's lengths; those of one draw depend on each other."""
    torch.manual_seed(0)
    draws = [estimator_of(law).systematic_lengths(count) for _ in range(4000)]
    for block in {0, count - 1}:
        seen = Counter(min(draw[block], 6) for draw in draws)
        expected = [probability(law, length) for length in range(6)]
        expected.append(1 - sum(expected))
        observed = [seen[length] for length in range(7)]
        assert stats.chisquare(observed, [4000 * p for p in expected]).pvalue > 1e-3


@every_law
def test_lengths_at_equidistant_levels_occur_as_often_as_the_law_says(law: str) -> None:
    """Of n blocks n P(N = k) have k further terms, up to rounding at both ends of that interval of levels."""
    torch.manual_seed(0)
    for count in (10, 1000):
        for _ in range(3):
            seen = Counter(estimator_of(law).systematic_lengths(count))
            assert all(abs(seen[k] - count * probability(law, k)) < 1 + 1e-6 for k in range(12))


@every_law
def test_the_number_of_terms_hardly_varies(law: str) -> None:
    """Standard deviation of the sum over 50 blocks, against that of independent lengths."""
    torch.manual_seed(0)
    sums = torch.tensor([sum(estimator_of(law).systematic_lengths(50)) for _ in range(2000)], dtype=torch.float64)
    p = LAWS[law]
    mean, variance = (p, p) if law == "poisson" else ((1 - p) / p, (1 - p) / p**2)
    assert abs(float(sums.mean()) - 50 * mean) < 5 * float(sums.std()) / math.sqrt(2000)
    assert float(sums.std()) < 0.3 * math.sqrt(50 * variance)


@every_law
def test_sums_over_blocks_keep_their_mean_with_less_spread(law: str) -> None:
    """Blocks with tr J^k = r^k for several r: sums of weighted terms against log(1 + r), from the same weights."""
    torch.manual_seed(0)
    estimator = estimator_of(law)
    radii = torch.linspace(-0.6, 0.6, 12, dtype=torch.float64).tolist()
    exact = sum(math.log1p(r) for r in radii)

    def estimate(lengths: list[int]) -> float:
        return sum(
            (-1) ** (k + 1) / k * weight * r**k
            for r, length in zip(radii, lengths, strict=True)
            for k, weight in enumerate(estimator.series_weights(length), start=1)
        )

    draws = 2000
    together = torch.tensor([estimate(estimator.systematic_lengths(12)) for _ in range(draws)])
    alone = torch.tensor([estimate([estimator.systematic_lengths(1)[0] for _ in radii]) for _ in range(draws)])
    for values in (together, alone):
        assert abs(float(values.mean()) - exact) < 4.5 * float(values.std()) / math.sqrt(draws)
    assert float(together.std()) < float(alone.std())


def test_blocks_take_the_lengths_in_random_order() -> None:
    torch.manual_seed(0)
    estimator = estimator_of("poisson")
    longest = Counter(max(range(5), key=estimator.systematic_lengths(5).__getitem__) for _ in range(1000))
    assert all(longest[block] > 120 for block in range(5))


@every_law
def test_weights_divide_by_the_probability_that_a_term_is_reached(law: str) -> None:
    reach = [1 - sum(probability(law, n) for n in range(k)) for k in (1, 2, 3)]
    assert estimator_of(law).series_weights(3) == pytest.approx([1, 1, *(1 / p for p in reach)])
    assert estimator_of(law).series_weights(0) == [1, 1]
