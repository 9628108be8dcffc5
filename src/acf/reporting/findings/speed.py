"""Steps and seconds until a variant reaches what its base ends with, over several experiments."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from acf.reporting.convergence import Crossing, Reached, convergence_of
from acf.reporting.findings.study import Experiment, Kind
from acf.reporting.sections.convergence_section import HEADINGS, row_of
from acf.reporting.wording import NOT_AVAILABLE, join, markdown_table


def on_convergence(study: Sequence[Experiment], kind: Kind) -> str:
    """Return how many variants reach the last validation bits/dim of their base, and after how many of its steps."""
    found = [one for _, one in _reached(study, kind)]
    if not found:
        return "Not available: no pair has validations yet."
    known = [one for one in found if one.mean is not None and one.of_base is not None]
    reach = f"{len(known)} reach{'es' * (len(known) == 1)} the last validation bits/dim of the base within its training"
    if not known:
        return f"Of {len(found)} variants, {reach}."
    steps, seconds = (_ratios(known, value) for value in (lambda one: one.steps, lambda one: one.seconds))
    return (
        f"Of {len(found)} variants, {reach}, after {_range(steps)} times the base's steps and {_range(seconds)} times "
        f"its seconds: {_fewer(steps)} in fewer steps, {_always(known)} with every seed, and {_fewer(seconds)} in "
        "fewer seconds."
    )


def convergence_part(study: Sequence[Experiment], kind: Kind) -> str:
    """Return the part of a document on convergence."""
    reached = _reached(study, kind)
    if not reached:
        return f"{on_convergence(study, kind)}\n"
    rows = [[f"`{name}`", row_of(one)[0], str(one.base), *row_of(one)[1:]] for name, one in reached]
    table = markdown_table(["experiment", HEADINGS[0], "base", *HEADINGS[1:]], rows, left=3)
    lacking = [
        f"{variant} in `{experiment.name}`"
        for experiment in study
        if experiment.table is not None
        for variant in experiment.pairs(kind)
        if (experiment.name, variant) not in {(name, one.variant) for name, one in reached}
    ]
    missing = f"\n{join(lacking)}: {NOT_AVAILABLE}.\n" if lacking else ""
    return f"**{on_convergence(study, kind)}**\n\n{table}{missing}"


def _reached(study: Sequence[Experiment], kind: Kind) -> list[tuple[str, Reached]]:
    return [
        (experiment.name, one)
        for experiment in study
        for one in convergence_of(experiment.curves, experiment.bases)
        if one.base is not None and one.variant in experiment.pairs(kind)
    ]


def _ratios(known: Sequence[Reached], value: Callable[[Crossing], float]) -> list[float]:
    return [value(one.mean) / value(one.of_base) for one in known if one.mean is not None and one.of_base is not None]


def _range(ratios: Sequence[float]) -> str:
    return " to ".join(dict.fromkeys([f"{min(ratios):.2f}", f"{max(ratios):.2f}"]))


def _fewer(ratios: Sequence[float]) -> str:
    return str(sum(ratio < 1 for ratio in ratios) or "none")


def _always(known: Sequence[Reached]) -> str:
    """Return how many variants reach the target in fewer steps than the base with every seed."""
    return str(
        sum(
            all(seed is not None and one.of_base is not None and seed.steps < one.of_base.steps for seed in one.seeds)
            for one in known
        )
        or "none"
    )
