"""Steps and seconds until a variant reaches what its base ends with, over several experiments."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from acf.reporting.convergence import Crossing, Reached, convergence_of
from acf.reporting.findings.study import AMONG, Experiment, Kind
from acf.reporting.sections.convergence_section import HEADINGS, row_of
from acf.reporting.wording import NOT_AVAILABLE, join, markdown_table

CLEARLY = 0.05
"""Ratios of steps that are nearer to 1 than this may be those of the noise of validations."""


def on_convergence(study: Sequence[Experiment], kind: Kind) -> str:
    """Return how many variants reach the last validation bits/dim of their base, and after how many of its steps."""
    reached = _reached(study, kind)
    if not reached:
        return "Not available: no pair has validations yet."
    known = [pair for pair in reached if pair[1].mean is not None and pair[1].of_base is not None]
    what = "the last validation bits/dim of the base within its training"
    if len(reached) == 1:
        name = _name(*reached[0])
        said = f"{name} reaches {what}" if known else f"{name} does not reach {what}"
    else:
        said = f"Of {len(reached)} {AMONG[kind]}, {len(known) or 'none'} reach{'es' * (len(known) == 1)} {what}"
    measured = [(experiment, one) for experiment, one in known if _has_ratios(one)]
    if measured:
        among = "" if len(measured) == len(known) else f" ({len(measured)} of them, the others by a first validation)"
        said += f"{among}, {_ratios(measured, alone=len(reached) == 1)}"
    elif known:
        said += ", by a first validation, so that no ratio is known"
    return f"{said}.{_caveats(reached)}"


def convergence_part(study: Sequence[Experiment], kind: Kind) -> str:
    """Return the part of a document on convergence."""
    reached = _reached(study, kind)
    if not reached:
        return f"{on_convergence(study, kind)}\n"
    rows = []
    for experiment, one in reached:
        variant, *cells = row_of(one, not experiment.incomparable_seconds)
        rows.append([f"`{experiment.name}`", variant, str(one.base), *cells])
    table = markdown_table(["experiment", HEADINGS[0], "base", *HEADINGS[1:]], rows, left=3)
    lacking = [
        f"{variant} in `{experiment.name}`"
        for experiment in study
        if experiment.table is not None
        for variant in experiment.pairs(kind)
        if (experiment.name, variant) not in {(other.name, one.variant) for other, one in reached}
    ]
    missing = f"\n{join(lacking)}: {NOT_AVAILABLE}.\n" if lacking else ""
    return f"**{on_convergence(study, kind)}**\n\n{table}{missing}"


def _reached(study: Sequence[Experiment], kind: Kind) -> list[tuple[Experiment, Reached]]:
    return [
        (experiment, one)
        for experiment in study
        for one in convergence_of(experiment.curves, experiment.bases)
        if one.base is not None and one.variant in experiment.pairs(kind)
    ]


def _name(experiment: Experiment, one: Reached) -> str:
    return f"{one.variant} in `{experiment.name}`"


def _caveats(reached: Sequence[tuple[Experiment, Reached]]) -> str:
    """Return a sentence on what weakens the comparison of each variant, such as its task or machine; "" if nothing."""
    told = []
    for experiment, one in reached:
        caveats = [*experiment.caveats(one.variant), *experiment.seconds_caveats(one.variant, str(one.base))]
        told += [f"{_name(experiment, one)}: {', '.join(caveats)}"] if caveats else []
    return f" Caveats: {'; '.join(told)}." if told else ""


def _has_ratios(one: Reached) -> bool:
    """Whether steps and seconds of both are known, not only as upper bounds, and those of the base are not 0."""
    if one.mean is None or one.of_base is None or one.mean.at_most or one.of_base.at_most:
        return False
    return one.of_base.steps > 0 and one.of_base.seconds > 0


def _ratios(measured: Sequence[tuple[Experiment, Reached]], alone: bool) -> str:
    """Return the ratios of steps and of comparable seconds to those of the base, and how many of them are below 1."""
    every = [one for _, one in measured]
    timed = [one for experiment, one in measured if not experiment.incomparable_seconds]
    steps, seconds = _each(every, lambda one: one.steps), _each(timed, lambda one: one.seconds)
    after = f"after {_range(steps)} times the base's steps"
    always = [one for one in every if _is_always_earlier(one)]
    clearly = sum(ratio < 1 - CLEARLY for ratio in _each(always, lambda one: one.steps))
    below = f"{len(always) or 'none'} in fewer steps with each of several seeds"
    below += f" ({clearly or 'none'} of them by more than {100 * CLEARLY:.0f} %)" if always else ""
    if timed:
        among = "" if len(timed) == len(every) else f" in the {len(timed)} whose seconds compare"
        after += f" and {_range(seconds)} times its seconds{among}"
        below += f", and {_fewer(seconds)} in fewer seconds"
    return after if alone else f"{after}: {below}"


def _each(measured: Sequence[Reached], value: Callable[[Crossing], float]) -> list[float]:
    return [value(one.mean) / value(one.of_base) for one in measured if one.mean and one.of_base]


def _range(ratios: Sequence[float]) -> str:
    return " to ".join(dict.fromkeys([f"{min(ratios):.2f}", f"{max(ratios):.2f}"]))


def _fewer(ratios: Sequence[float]) -> str:
    return str(sum(ratio < 1 for ratio in ratios) or "none")


def _is_always_earlier(one: Reached) -> bool:
    """Whether a variant of several seeds reaches the target in fewer steps than the base with each seed."""
    return len(one.seeds) > 1 and all(
        seed is not None and one.of_base is not None and seed.steps < one.of_base.steps for seed in one.seeds
    )
