"""The report's section on how fast trainings come to a validation bits/dim."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from acf.reporting.convergence import Crossing, Reached, convergence, curves_of
from acf.reporting.page_parts import Section, Table
from acf.reporting.results import Results
from acf.reporting.wording import ABSENT, count, decimal, duration

HEADINGS = ("model", "target", "reached by", "steps", "ratio of steps", "seconds", "ratio of seconds")
DIGITS = 3
"""Decimals of targets."""


def convergence_section(results: Results, targets: Sequence[float] = ()) -> Section | None:
    """Return the section; None where nothing can be compared: no base with validations, and no targets.

    Args:
        results: of an experiment.
        targets: validation bits/dim beside those that the bases end with.
    """
    found = convergence(results, targets)
    if not found:
        return None
    sentences = [_sentence(one, results) for one in found if one.base in results.histories and one.base is not None]
    caption = "Steps and seconds of training until a validation bits/dim; in brackets from the first to the last seed."
    return Section(
        name="convergence",
        title="Convergence",
        sentences=sentences,
        tables=[Table(HEADINGS, [row_of(one, not results.incomparable_seconds) for one in found], caption)],
        notes=_notes(results),
    )


def _sentence(one: Reached, results: Results) -> str:
    what = f"validation bits/dim {decimal(one.target, DIGITS)}"
    if one.mean is None:
        last = max(int(history["step"].iloc[-1]) for history in results.histories[one.variant])
        return f"{one.variant} does not reach {what} within its {count(last)} steps."
    if one.of_base is None:
        return f"{one.variant} reaches {what} and {one.base} does not."
    if one.mean.at_most or one.of_base.at_most:
        return f"{one.variant} or {one.base} reaches {what} by its first validation, so that no ratio is known."
    ratio = _ratio(one, lambda crossing: crossing.steps)
    if results.incomparable_seconds:
        return f"{one.variant} reaches {what} after {ratio} times the steps of {one.base}."
    seconds = _ratio(one, lambda crossing: crossing.seconds)
    return f"{one.variant} reaches {what} after {ratio} times the steps and {seconds} times the seconds of {one.base}."


def row_of(one: Reached, seconds_compare: bool) -> list[str]:
    """Return the cells of one variant and target under `HEADINGS`; seconds that do not compare have no ratio."""
    reached = f"{len(one.reached)} of {len(one.seeds)} seeds" if len(one.seeds) > 1 else "yes" if one.reached else "no"
    cells = [one.variant, decimal(one.target, DIGITS), reached]
    for value, write in ((lambda c: c.steps, count), (lambda c: c.seconds, duration)):
        cells += [_when(one, value, write), _ratio(one, value)]
    return cells if seconds_compare else [*cells[:-1], ABSENT]


def _when(one: Reached, value: Callable[[Crossing], float], write: Callable[[float], str]) -> str:
    if one.mean is None:
        return "not reached"
    return f"{'at most ' * one.mean.at_most}{write(value(one.mean))}{_range(one, value, write)}"


def _ratio(one: Reached, value: Callable[[Crossing], float]) -> str:
    """Return the ratio to the base's mean curve; one where both curves are only known to be below is not known."""
    if one.mean is None or one.of_base is None or one.mean.at_most or one.of_base.at_most or not value(one.of_base):
        return ABSENT
    of_base = value(one.of_base)
    return f"{value(one.mean) / of_base:.2f}{_range(one, lambda crossing: value(crossing) / of_base, '{:.2f}'.format)}"


def _range(one: Reached, value: Callable[[Crossing], float], write: Callable[[float], str]) -> str:
    """Return the smallest and the largest of the seeds in brackets; nothing for one seed."""
    if len(one.seeds) < 2 or not one.reached:
        return ""
    values = [value(crossing) for crossing in one.reached]
    ends = " to ".join(dict.fromkeys([write(min(values)), write(max(values))]))
    missing = len(one.seeds) - len(one.reached)
    return f" ({ends}{f'; {missing} not' if missing else ''})"


def _notes(results: Results) -> list[str]:
    curves = [curve for each in curves_of(results).values() for curve in each]
    every = sorted({int(step) for curve in curves for step in np.diff(curve.steps)})
    error = float(np.mean(np.concatenate([curve.errors for curve in curves])))
    apart = (
        f"{count(every[0])}{f' to {count(every[-1])}' if len(every) > 1 else ''}" if every else "an unknown number of"
    )
    several = any(len(each) > 1 for each in curves_of(results).values())
    return [
        f"Validations are {apart} steps apart; between two of them bits/dim is taken as a straight line, so that steps "
        "and seconds are known to no better than that. The first crossing counts. The standard error of one validation "
        f"is {error:.2g} bits/dim on average, over its {results.unit}, which moves a crossing further where a curve is "
        "flat.",
        "A target is what a base ends with, or one of reporting.validation_targets of params.yaml. "
        + ("Means and ratios are of the mean curve over seeds. " if several else "")
        + "Seconds are those of training, interruptions left out, on the devices named below.",
        *results.notes_on_seconds,
    ]
