"""How many steps and seconds trainings take to a given validation bits/dim, compared with their base.

Validation bits/dim is known at the steps of a validation only. Between two of them it is taken as a straight line in
steps and in seconds, so that a crossing lies between two validations and is no better known than they are apart; the
noise of a validation, on few images, moves it further. The first crossing counts, even if the curve rises again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from acf.reporting.results import Results


@dataclass(frozen=True)
class Crossing:
    """When a training reaches a target.

    Attributes:
        steps: of the optimiser.
        seconds: of training.
        at_most: whether it was reached by the first validation already, so that both are upper bounds.
    """

    steps: float
    seconds: float
    at_most: bool = False


@dataclass(frozen=True)
class Curve:
    """Validations of a training, or the mean of those of several seeds.

    Attributes:
        steps: of each validation, increasing.
        seconds: of training until then.
        bits: bits/dim.
        errors: standard errors of `bits` over validation images.
    """

    steps: NDArray[np.float64]
    seconds: NDArray[np.float64]
    bits: NDArray[np.float64]
    errors: NDArray[np.float64]

    def crossing(self, target: float) -> Crossing | None:
        """Return when the curve is first at `target` bits/dim or below; None if it never is."""
        below = np.flatnonzero(self.bits <= target)
        if not len(below):
            return None
        at = int(below[0])
        if at == 0:
            return Crossing(float(self.steps[0]), float(self.seconds[0]), at_most=True)
        before, after = self.bits[at - 1], self.bits[at]
        share = (before - target) / (before - after)
        steps, seconds = (
            values[at - 1] + share * (values[at] - values[at - 1]) for values in (self.steps, self.seconds)
        )
        return Crossing(float(steps), float(seconds))


@dataclass(frozen=True)
class Reached:
    """When the trainings of one variant reach one target, beside its base.

    Attributes:
        target: validation bits/dim.
        variant: the variant.
        base: its base; None where it has none, and where the target is what it ends with itself.
        mean: crossing of the mean curve over seeds; None if it is not reached.
        seeds: crossing of each seed.
        of_base: crossing of the mean curve of the base; None without one, or if it is not reached.
    """

    target: float
    variant: str
    base: str | None
    mean: Crossing | None
    seeds: tuple[Crossing | None, ...]
    of_base: Crossing | None

    @property
    def reached(self) -> list[Crossing]:
        """Crossings of the seeds that reach the target."""
        return [crossing for crossing in self.seeds if crossing is not None]


def curve_of(history: pd.DataFrame) -> Curve | None:
    """Return the validations of a history (`read_history`); None if there was none."""
    checked = history.dropna(subset=["validation_bits_per_dim"])
    if checked.empty:
        return None
    names = ("step", "seconds", "validation_bits_per_dim", "validation_se")
    return Curve(*(checked[name].to_numpy(dtype=float) for name in names))


def mean_curve(curves: Sequence[Curve]) -> Curve | None:
    """Return the mean of curves at the steps that all of them have, with the mean of their errors; None if none is."""
    if not curves:
        return None
    steps = reduce(np.intersect1d, [curve.steps for curve in curves])
    if not len(steps):
        return None
    rows = [np.isin(curve.steps, steps) for curve in curves]
    seconds, bits, errors = (
        np.mean([getattr(curve, name)[row] for curve, row in zip(curves, rows, strict=True)], axis=0)
        for name in ("seconds", "bits", "errors")
    )
    return Curve(steps, seconds, bits, errors)


def curves_of(results: Results) -> dict[str, list[Curve]]:
    """Return the validation curve of each training by variant; those without validations are left out."""
    curves = {variant: [curve_of(history) for history in each] for variant, each in results.histories.items()}
    return {variant: found for variant, each in curves.items() if (found := [curve for curve in each if curve])}


def convergence(results: Results, targets: Sequence[float] = ()) -> list[Reached]:
    """Return when each variant reaches what its base ends with, and each of `targets`; as `convergence_of`.

    Args:
        results: of an experiment; what is not trained may be missing.
        targets: validation bits/dim.
    """
    return convergence_of(curves_of(results), results.bases, targets)


def convergence_of(
    curves: Mapping[str, Sequence[Curve]], bases: Mapping[str, str | None], targets: Sequence[float] = ()
) -> list[Reached]:
    """Return when each variant reaches what its base ends with, and each of `targets`.

    Args:
        curves: of the trainings of each variant; what is not trained may be missing.
        bases: of each variant, None where it has none.
        targets: validation bits/dim.

    Returns:
        By base, in the order of params.yaml: the last value of its mean curve, reached by the base and by the variants
        that have it as base; then by target: all variants that have validations.
    """
    means = {variant: mean for variant, each in curves.items() if (mean := mean_curve(each))}

    def reached(target: float, variant: str, base: str | None) -> Reached:
        of_base = means[base].crossing(target) if base in means else None
        seeds = tuple(curve.crossing(target) for curve in curves[variant])
        return Reached(target, variant, base, means[variant].crossing(target), seeds, of_base)

    found = []
    for base in dict.fromkeys(base for base in bases.values() if base in means):
        target = float(means[str(base)].bits[-1])
        compared = [variant for variant in means if variant == base or bases.get(variant) == base]
        found += [reached(target, variant, None if variant == base else base) for variant in compared]
    return found + [reached(target, variant, bases.get(variant)) for target in targets for variant in means]
