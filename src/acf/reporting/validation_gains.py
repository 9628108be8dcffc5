"""Validation bits/dim of a variant and its base after equal seconds, or equal steps, of training.

Seconds are those after which the shorter of the two trainings has ended, in the mean over seeds. How many steps a
variant has made by then is the mean over its seeds, too, so that a machine that was busy during one of them does not
count as a difference of trainings. Between two validations bits/dim is taken as a straight line in steps. The one that
takes longer is then in the middle of its training: where the learning rate falls to the end of it, it is not yet what a
training of that many seconds in all would have made of it.

Equal steps are the same share of all steps, of which the two have equally many.

With S_A and S_B trainings the difference of their means has the variance k V, k = 1 / S_A + 1 / S_B, where V is the
variance of a training about the mean of its variant at this place, pooled over all variants of the experiment with f
degrees of freedom, the sum of S - 1. The interval is +/- t(f) sqrt(k V), t(f) the quantile of Student's distribution.
The validation images are the same for all, and their choice is no part of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from acf.reporting.convergence import Curve, mean_curve
from acf.reporting.paired_differences import LEVEL

Means = Mapping[str, Curve]
"""The mean curve of each variant that has validations."""


@dataclass(frozen=True)
class After:
    """The trainings of one variant after some steps.

    Attributes:
        steps: that they have made, in the mean.
        of_all: steps that they make in all.
        seconds: that they have taken, in the mean.
        bits: validation bits/dim of each.
    """

    steps: float
    of_all: float
    seconds: float
    bits: NDArray[np.float64]


@dataclass(frozen=True)
class ValidationGain:
    """A variant and its base after as many seconds or as many steps.

    Attributes:
        variant: the variant.
        base: its base.
        own: the trainings of the variant.
        of_base: those of the base.
        gain_se: standard error of the gain over trainings; None where no variant has several.
        df: its degrees of freedom.
    """

    variant: str
    base: str
    own: After
    of_base: After
    gain_se: float | None
    df: int

    @property
    def gain(self) -> float:
        """Bits/dim of the base minus those of the variant: positive if the variant is better."""
        return float(self.of_base.bits.mean() - self.own.bits.mean())

    def interval(self, comparisons: int = 1) -> tuple[float, float] | None:
        """Return a confidence interval of the gain, one of `comparisons` that hold at once; None if it is not known."""
        if self.gain_se is None:
            return None
        from scipy.special import stdtrit  # quantiles of Student's distribution

        half = self.gain_se * -float(stdtrit(self.df, (1 - LEVEL) / (2 * comparisons)))
        return self.gain - half, self.gain + half


def after_equal_seconds(curves: Mapping[str, Sequence[Curve]], bases: Mapping[str, str | None]) -> list[ValidationGain]:
    """Return each variant that has a base beside it, after the seconds of the shorter training.

    Args:
        curves: of the trainings of each variant; what is not trained may be missing.
        bases: of each variant, None where it has none.

    Returns:
        In the order of `curves`; a pair of which one was not validated by then is left out.
    """

    def steps_by_then(means: Means, variant: str, base: str) -> dict[str, float]:
        seconds = min(float(means[name].seconds[-1]) for name in (variant, base))
        return {
            name: float(np.interp(seconds, mean.seconds, mean.steps))
            for name, mean in means.items()
            if mean.seconds[0] <= seconds
        }

    return _gains(curves, bases, steps_by_then)


def after_equal_steps(
    curves: Mapping[str, Sequence[Curve]], bases: Mapping[str, str | None], share: float
) -> list[ValidationGain]:
    """Return each variant that has a base of as many steps beside it, after a share of these steps.

    Args:
        curves: of the trainings of each variant; what is not trained may be missing.
        bases: of each variant, None where it has none.
        share: in (0, 1].

    Returns:
        In the order of `curves`; a pair of which one was not validated by then is left out.
    """

    def steps_by_then(means: Means, variant: str, base: str) -> dict[str, float]:
        last = float(means[base].steps[-1])
        return {
            name: share * last
            for name, mean in means.items()
            if mean.steps[0] <= share * last and mean.steps[-1] == last
        }

    return _gains(curves, bases, steps_by_then)


def _gains(
    curves: Mapping[str, Sequence[Curve]],
    bases: Mapping[str, str | None],
    steps_by_then: Callable[[Means, str, str], Mapping[str, float]],
) -> list[ValidationGain]:
    """Return each variant that has a base beside it, where both are among those that `steps_by_then` gives steps of.

    Args:
        curves: of the trainings of each variant.
        bases: of each variant, None where it has none.
        steps_by_then: of the mean curves, a variant and its base: the steps at which each variant is looked at.
    """
    means = {variant: mean for variant, each in curves.items() if (mean := mean_curve(each))}
    found = []
    for variant in means:
        base = bases.get(variant)
        if base is None or base not in means:
            continue
        steps = steps_by_then(means, variant, base)
        after = {name: _after(at, means[name], curves[name]) for name, at in steps.items()}
        if {variant, base} <= after.keys():
            error = _error(after, variant, base)
            found.append(ValidationGain(variant, base, after[variant], after[base], *error))
    return found


def _after(steps: float, mean: Curve, curves: Sequence[Curve]) -> After:
    bits = np.array([np.interp(steps, curve.steps, curve.bits) for curve in curves])
    return After(steps, float(mean.steps[-1]), float(np.interp(steps, mean.steps, mean.seconds)), bits)


def _error(after: Mapping[str, After], variant: str, base: str) -> tuple[float | None, int]:
    df = sum(len(one.bits) - 1 for one in after.values())
    if not df:
        return None, 0
    V = sum(float(((one.bits - one.bits.mean()) ** 2).sum()) for one in after.values()) / df
    return math.sqrt(V * sum(1 / len(after[name].bits) for name in (variant, base))), df
