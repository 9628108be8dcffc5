"""Differences of bits/dim: intervals that hold as often as they say, closed forms, and what pairing takes away."""

import math

import numpy as np
import pytest
from scipy import stats

from acf.reporting.paired_differences import Row, difference, training_spread

N = 80


def draw(generator, seeds, trainings, particular=1.0, rest=0.5, common=3.0):
    """Draw rows from the model, all of the same mean.

    Returns:
        The rows, one per entry of `seeds`, and the effects of their trainings, whose standard deviation is `trainings`.
    """
    a = generator.normal(0, common, N)
    effects = [generator.normal(0, trainings, (S, 1)) for S in seeds]
    rows = [Row(a + generator.normal(0, particular, N) + t + generator.normal(0, rest, (len(t), N))) for t in effects]
    return rows, effects


def coverage(seeds, trainings, repeats=1000, comparisons=1, conditional=False):
    """Return how often the interval holds the true difference, that of the trainings drawn if `conditional`."""
    generator, held = np.random.default_rng(0), 0
    for _ in range(repeats):
        rows, effects = draw(generator, seeds, trainings)
        found = difference(rows[0], rows[1], training_spread(rows))
        low, high = found.interval(comparisons)
        truth = float(effects[0].mean() - effects[1].mean()) if conditional else 0.0
        held += low <= truth <= high
    return held


@pytest.mark.parametrize("trainings", [0.05, 0.3])  # smaller and larger than the error over images
@pytest.mark.parametrize("seeds", [(2, 2), (3, 3), (3, 1), (2, 2, 2, 2)])
def test_an_interval_over_images_and_seeds_holds_as_often_as_it_says(seeds, trainings):
    """Never less than the level, and at most 3 % more, where neither of the two errors is much the larger one."""
    held = coverage(seeds, trainings)
    assert stats.binom.ppf(1e-3, 1000, 0.95) <= held <= stats.binom.ppf(1 - 1e-3, 1000, 0.98)


@pytest.mark.parametrize("seeds", [(1, 1), (1, 1, 1)])
def test_with_one_seed_an_interval_is_about_these_trainings_only(seeds):
    held = coverage(seeds, 0.5, conditional=True)
    assert stats.binom.ppf(1e-3, 1000, 0.95) <= held <= stats.binom.ppf(1 - 1e-3, 1000, 0.95)
    assert coverage(seeds, 0.5) < 0.6 * 1000  # which is why everything that is said has to say so


def test_intervals_for_several_comparisons_hold_all_at_once():
    held, generator, repeats = 0, np.random.default_rng(0), 500
    for _ in range(repeats):
        rows, _ = draw(generator, (2, 2, 2, 2), 0.2)
        spread = training_spread(rows)
        intervals = [difference(rows[0], row, spread).interval(comparisons=3) for row in rows[1:]]
        held += all(low <= 0 <= high for low, high in intervals)
    assert held >= stats.binom.ppf(1e-3, repeats, 0.95)


@pytest.mark.parametrize("seeds", [(2, 2), (3, 1), (1, 1)])
def test_the_squared_standard_error_is_the_variance_of_the_difference(seeds):
    generator, T, C, E = np.random.default_rng(0), 0.1**2, 2 * 1.0**2, 0.5**2
    k = sum(1 / S for S in seeds)
    squared, found = [], []
    for _ in range(1500):
        rows, _ = draw(generator, seeds, 0.1)
        one = difference(rows[0], rows[1], training_spread(rows))
        squared.append(one.se**2)
        found.append(one.mean)
    true = (C + k * E) / N + k * T * (max(seeds) > 1)
    assert np.mean(squared) == pytest.approx(true, rel=0.05)  # E counted once
    assert np.var(found) == pytest.approx((C + k * E) / N + k * T, rel=4 * math.sqrt(2 / 1500))


def test_one_seed_each_is_the_paired_t_test():
    (one, other), _ = draw(np.random.default_rng(1), (1, 1), 0.3)
    found = difference(one, other, training_spread([one, other]))
    expected = stats.ttest_rel(one.bits[0], other.bits[0]).confidence_interval(0.95)
    assert found.interval() == pytest.approx(tuple(expected))
    assert found.se == pytest.approx(stats.sem(one.bits[0] - other.bits[0]))
    assert (found.over, found.training_df, found.images) == ("images", 0, N)


def test_images_that_are_all_alike_leave_the_two_sample_t_test():
    generator = np.random.default_rng(2)
    seeds = [generator.normal(2, 0.1, S) for S in (4, 3)]
    one, other = (Row(np.repeat(values[:, None], N, 1)) for values in seeds)
    found = difference(one, other, training_spread([one, other]))
    expected = stats.ttest_ind(*seeds).confidence_interval(0.95)
    assert found.interval() == pytest.approx(tuple(expected))
    assert (found.over, found.training_df) == ("images and seeds", 5)


def test_what_images_have_in_common_cancels():
    generator = np.random.default_rng(3)
    rows, _ = draw(generator, (2, 3), 0.1, common=0.0)
    common = generator.normal(0, 100, N)
    harder = [Row(row.bits + common) for row in rows]
    found, paired = (difference(*pair, training_spread(pair)) for pair in (rows, harder))
    assert paired.mean == pytest.approx(found.mean, abs=1e-9)
    assert paired.interval() == pytest.approx(found.interval())


def test_the_other_way_round_only_the_sign_is_another():
    rows, _ = draw(np.random.default_rng(4), (2, 1), 0.1)
    spread = training_spread(rows)
    there, back = difference(*rows, spread), difference(*rows[::-1], spread)
    assert back.mean == -there.mean
    assert back.se == there.se
    assert back.interval() == pytest.approx([-end for end in there.interval()[::-1]])


def test_a_baseline_has_no_training_to_differ():
    generator = np.random.default_rng(5)
    (flow,), effects = draw(generator, (3,), 1.0)
    baseline = Row(generator.normal(2, 1, (1, N)), trained=False)
    spread = training_spread([flow, baseline])
    found = difference(baseline, flow, spread)
    assert found.training_part == pytest.approx(np.var(effects[0], ddof=1) / 3, rel=0.2)
    assert found.training_df == 2
    other = difference(baseline, Row(baseline.bits + 1, trained=False), spread)
    assert (other.se, other.over) == (pytest.approx(0, abs=1e-12), "images")


def test_a_single_training_takes_the_spread_of_the_other_variants():
    rows, _ = draw(np.random.default_rng(6), (3, 1, 1), 1.0)
    spread = training_spread(rows)
    of_one, of_several = difference(rows[1], rows[2], spread), difference(rows[0], rows[2], spread)
    assert of_one.training_part == pytest.approx(2 * spread.between)
    assert of_several.training_part == pytest.approx((1 / 3 + 1) * spread.between)
    assert {of_one.over, of_several.over} == {"images and seeds"}


def test_equal_models_do_not_differ():
    row = Row(np.random.default_rng(7).normal(size=(1, N)))
    found = difference(row, row, training_spread([row]))
    assert (found.mean, found.se, found.interval(5)) == (0, 0, (0, 0))


def test_what_cannot_be_compared_is_refused():
    for bits in (np.zeros((0, 5)), np.zeros((2, 1)), np.zeros(5)):
        with pytest.raises(ValueError, match="at least one model on at least two images"):
            Row(bits)
    few, many = Row(np.zeros((2, 5))), Row(np.zeros((2, 6)))
    for pair, spread in (((few, many), training_spread([])), ((few, few), training_spread([many]))):
        with pytest.raises(ValueError, match="different numbers of images"):
            difference(*pair, spread)
    with pytest.raises(ValueError, match=r"different numbers of images: \[5, 6\]"):
        training_spread([few, many])
    for comparisons, level in ((0, 0.95), (1, 1.0), (1, math.nan)):
        with pytest.raises(ValueError, match="no interval"):
            difference(few, few, training_spread([])).interval(comparisons, level)
