"""The gains of all pairs of an experiment in one quantity, with what else than the one thing keeps the two apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from acf.reporting.findings.gains import HIGHER, LOWER, SINGLE, UNDECIDED, UNKNOWN, Gain
from acf.reporting.findings.study import Experiment, Kind
from acf.reporting.findings_file import PairFinding
from acf.reporting.matched_depth import DEPTH
from acf.reporting.matched_seconds import MATCHED
from acf.reporting.validation_gains import ValidationGain, after_equal_seconds, after_equal_steps
from acf.reporting.wording import ABSENT, NOT_COMPARABLE, count, decimal, duration, trainings, with_error

EQUAL_PARAMETERS = 0.02
"""Numbers of parameters that differ by no larger share count as equal."""
BY_PARTNER = (MATCHED, DEPTH)
"""Quantities in which a variant is compared with another flow than its base."""
Study = Sequence[Experiment]


def bits_gains(study: Study, kind: Kind) -> list[Gain]:
    """Return the gains in test bits/dim of the pairs that params.yaml now has."""
    gains: list[Gain] = []
    for experiment in study:
        flows = experiment.flows
        for variant, base in experiment.pairs(kind).items():
            if not {variant, base} <= set(flows.index) or pd.isna(flows.loc[variant]["base_gain"]):
                continue
            if flows.loc[variant]["base"] != base:  # the report is of other bases
                continue
            row, other = flows.loc[variant], flows.loc[base]
            ends = (row["base_gain_low"], row["base_gain_high"])
            caveats = [*experiment.caveats(variant), *_caveats(row, other)]
            gains.append(
                Gain(
                    *(experiment.name, variant, base, row["base_gain"], row["base_gain_se"], ends),
                    cells=_conditions(row, other, seconds_compare=not experiment.incomparable_seconds),
                    caveats=caveats,
                )
            )
    return gains


def seconds_gains(study: Study, kind: Kind) -> list[Gain]:
    """Return the gains in validation bits/dim after equal seconds of training."""
    gains = []
    for experiment in study:
        if experiment.incomparable_seconds:
            continue
        compared = after_equal_seconds(experiment.curves, experiment.bases)
        for one in compared:
            if one.variant not in experiment.pairs(kind):
                continue
            cells = {"seconds": duration(one.own.seconds)} | {
                heading: f"{count(after.steps)} of {count(after.of_all)}"
                for heading, after in (("steps by then", one.own), ("base's steps", one.of_base))
            }
            caveats = experiment.seconds_caveats(one.variant, one.base)
            gains.append(_of_validation(experiment, one, len(compared), cells, caveats))
    return gains


def steps_gains(study: Study, kind: Kind, shares: Sequence[float]) -> list[list[Gain]]:
    """Return the gains in validation bits/dim after each share of the steps; all intervals hold at once."""
    gains: list[list[Gain]] = [[] for _ in shares]
    for experiment in study:
        compared = [after_equal_steps(experiment.curves, experiment.bases, share) for share in shares]
        comparisons = sum(map(len, compared))
        for found, place in zip(compared, gains, strict=True):
            pairs = [one for one in found if one.variant in experiment.pairs(kind)]
            place += [_of_validation(experiment, one, comparisons, {}, ()) for one in pairs]
    return gains


def _of_validation(
    experiment: Experiment, one: ValidationGain, comparisons: int, cells: Mapping[str, str], caveats: Sequence[str]
) -> Gain:
    """Return a gain in validation bits/dim, one of `comparisons`, with these cells and caveats."""
    every = [*experiment.caveats(one.variant), *caveats]
    ends = one.interval(comparisons)
    return Gain(experiment.name, one.variant, one.base, one.gain, one.gain_se, ends, cells, every)


def found_gains(study: Study, quantity: str, kind: Kind = "attention", decisive: int = 0) -> list[Gain]:
    """Return the gains of the pairs of a kind in a quantity of findings.json.

    Args:
        study: all experiments.
        quantity: its name there.
        kind: of the pairs.
        decisive: of several places on its scale, which one the gain is at; those at all are in the cells.
    """
    gains = []
    for experiment in study:
        pairs: dict[str, list[PairFinding]] = {}
        for one in experiment.findings.pairs if experiment.findings else ():
            if one.quantity == quantity and _is_pair(one, experiment, kind):
                pairs.setdefault(one.variant, []).append(one)
        for places in pairs.values():
            one = places[decisive]
            cells = {}
            if len(places) > 1:
                cells = {"at": one.at} | {f"gain, {each.at}": with_error(each.gain, each.gain_se) for each in places}
            cells |= {"variant's value": with_error(one.value, one.value_se), "over": _over(one)}
            weak = [SINGLE] if one.seeds == one.base_seeds == 1 else []
            caveats = [*experiment.caveats(one.variant), *weak]
            ends = (one.low, one.high)
            gains.append(Gain(experiment.name, one.variant, one.base, one.gain, one.gain_se, ends, cells, caveats))
    return gains


def noise_gains(study: Study, kind: Kind = "attention") -> list[Gain]:
    """Return the gains of the pairs of a kind in the rise of bits/dim, at the strongest noise."""
    return found_gains(study, "noise", kind, decisive=-1)


def matched_gains(study: Study) -> list[Gain]:
    """Return the gains in test bits/dim over flows that were trained for as many seconds, with seconds and steps."""
    gains = []
    for experiment in study:
        if experiment.incomparable_seconds:  # the report may be older than this
            continue
        steps = {name: count(row["train_steps"]) for name, row in experiment.flows.iterrows()}
        seconds = _at(experiment, MATCHED)
        for gain in found_gains([experiment], MATCHED):
            both = f"{steps.get(gain.variant, ABSENT)} and {steps.get(gain.base, ABSENT)}"
            caveats = [*gain.caveats, *_parameter_caveats(experiment, gain)]
            cells = {"seconds": seconds[gain.variant], "steps": both, **gain.cells}
            gains.append(replace(gain, cells=cells, caveats=caveats))
    return gains


def depth_gains(study: Study) -> list[Gain]:
    """Return the gains in test bits/dim over flows that have as many blocks, with blocks and parameters."""
    gains = []
    for experiment in study:
        flows, blocks = experiment.flows, _at(experiment, DEPTH)
        for gain in found_gains([experiment], DEPTH):
            if not {gain.variant, gain.base} <= set(flows.index):  # table and findings are of different reports
                continue
            more = _more_parameters(*(flows["parameters"][name] for name in (gain.variant, gain.base)))
            caveats = [*gain.caveats, *_parameter_caveats(experiment, gain)]
            row = {name: flows[name][gain.variant] for name in ("base_gain", "base_gain_se")}
            over_base = ABSENT if pd.isna(row["base_gain"]) else with_error(row["base_gain"], row["base_gain_se"])
            cells = {"blocks": blocks[gain.variant], "parameters": _share(more), "gain over its base": over_base}
            cells |= gain.cells
            gains.append(replace(gain, cells=cells, caveats=caveats))
    return gains


def beyond_depth(study: Study) -> list[Gain]:
    """Return for each variant the less favourable of its findings against its base and against a flow as deep.

    It counts as lower only if both intervals say so: an intersection-union test, which needs no wider intervals. Higher
    means higher than at least one of them. Variants without both gains are left out; the caveats are those of both.
    """
    over_base = {(one.experiment, one.variant): one for one in bits_gains(study, "attention")}
    order = (HIGHER, UNKNOWN, UNDECIDED, LOWER)
    found = []
    for deep in depth_gains(study):
        base = over_base.get((deep.experiment, deep.variant))
        if base is not None:
            worse = min((deep, base), key=lambda one: (order.index(one.found), one.gain))
            found.append(replace(worse, caveats=list(dict.fromkeys([*base.caveats, *deep.caveats]))))
    return found


def _at(experiment: Experiment, quantity: str) -> dict[str, str]:
    """Return what each variant and its partner have in common."""
    pairs = experiment.findings.pairs if experiment.findings else ()
    return {one.variant: one.at for one in pairs if one.quantity == quantity}


def _over(one: PairFinding) -> str:
    return f"{one.over}, {trainings(one.seeds, one.base_seeds)}"


def _is_pair(one: PairFinding, experiment: Experiment, kind: Kind) -> bool:
    """Whether a finding, which may be of earlier bases, is of a pair of a kind that params.yaml now has."""
    pairs = experiment.pairs(kind)
    if one.variant not in pairs:
        return False
    others = experiment.bases.keys() - experiment.attentive
    return one.base in others if one.quantity in BY_PARTNER else one.base == pairs[one.variant]


def _more_parameters(own: float, of_base: float) -> float:
    """Return by what share a variant has more parameters than its base."""
    return float(own / of_base - 1) if of_base else math.nan


def _unequal(more: float) -> list[str]:
    """Return the caveat on a share of parameters that is not equal; none on one that is."""
    said = f"{abs(more):.1%} {'more' if more > 0 else 'fewer'} parameters".replace("%", " %")
    return [said] if abs(more) > EQUAL_PARAMETERS else []


def _parameter_caveats(experiment: Experiment, gain: Gain) -> list[str]:
    """Return the caveat on the parameters of a variant and its partner, where the table has both."""
    parameters = experiment.flows["parameters"]
    both = {gain.variant, gain.base} <= set(parameters.index)
    return _unequal(_more_parameters(parameters[gain.variant], parameters[gain.base])) if both else []


def _share(more: float) -> str:
    return f"{'+' * (more >= 0)}{decimal(100 * more, 1)} %"


def _caveats(row: pd.Series, base: pd.Series) -> list[str]:
    """Return what keeps a comparison from being one of trainings, at equal parameters and steps."""
    caveats = [SINGLE] if row["base_gain_over"] == "images" else []
    caveats += _unequal(_more_parameters(row["parameters"], base["parameters"]))
    if row["train_steps"] != base["train_steps"]:
        caveats.append(f"{count(row['train_steps'])} steps against {count(base['train_steps'])}")
    return caveats


def _conditions(row: pd.Series, base: pd.Series, seconds_compare: bool) -> dict[str, str]:
    """Return what a variant and its base have been given, seconds where they compare."""
    steps = [count(one["train_steps"]) for one in (row, base)]
    more = _more_parameters(row["parameters"], base["parameters"])
    other = "" if row["device"] == base["device"] else ", on another machine"
    slower = row["train_seconds"] / base["train_seconds"] if base["train_seconds"] else math.nan
    return {
        "bits/dim": with_error(row["bits_per_dim"], row["bits_per_dim_se"]),
        "trainings": trainings(row["seeds"], base["seeds"]),
        "parameters": _share(more),
        "steps": steps[0] if steps[0] == steps[1] else " and ".join(steps),
        "seconds": f"{decimal(slower, 2)} times{other}" if seconds_compare else NOT_COMPARABLE,
    }
