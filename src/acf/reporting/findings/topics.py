"""The generated parts of documents: for each topic an answer in one sentence, one per experiment, and a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from acf.reporting.equal_seconds import equal_seconds
from acf.reporting.findings.gains import Gain, gains_table, tally
from acf.reporting.findings.speed import convergence_part, on_convergence
from acf.reporting.findings.study import Experiment, Kind
from acf.reporting.findings.survey import attention_part, experiments_part, on_certificates
from acf.reporting.findings_file import PairFinding
from acf.reporting.matched_seconds import MATCHED
from acf.reporting.wording import NOT_AVAILABLE, count, decimal, duration, join, trainings, with_error

BITS, WHOLE, EQUAL, EXCESS, DISTANCE, RISE, ERRORS = (
    "test bits/dim",
    "test bits/dim after as many seconds",
    "validation bits/dim at equal seconds",
    "excess bits/dim halfway on great circles",
    "the Fréchet distance",
    "the rise of bits/dim under the strongest noise",
    "the error rate of nearest neighbours under the strongest noise",
)
AMONG: dict[Kind, str] = {"attention": "attentive variants", "base": "variants without attention"}
EQUAL_PARAMETERS = 0.02
"""Numbers of parameters that differ by no larger share count as equal."""
SINGLE = trainings(1, 1)
Study = Sequence[Experiment]
Remedy = Callable[[Experiment], str]


def bits_gains(study: Study, kind: Kind) -> list[Gain]:
    """Return the gains in test bits/dim."""
    gains: list[Gain] = []
    for experiment in study:
        flows = experiment.flows
        for variant, base in experiment.pairs(kind).items():
            if not {variant, base} <= set(flows.index) or pd.isna(flows.loc[variant]["base_gain"]):
                continue
            row, other = flows.loc[variant], flows.loc[base]
            ends = (row["base_gain_low"], row["base_gain_high"])
            caveats = _caveats(row, other, experiment.tasks[variant])
            gains.append(
                Gain(
                    *(experiment.name, variant, base, row["base_gain"], row["base_gain_se"], ends),
                    cells=_conditions(row, other),
                    caveats=caveats,
                )
            )
    return gains


def seconds_gains(study: Study, kind: Kind) -> list[Gain]:
    """Return the gains in validation bits/dim after equal seconds of training."""
    gains = []
    for experiment in study:
        compared = equal_seconds(experiment.curves, experiment.bases)
        for one in compared:
            if one.variant not in experiment.pairs(kind):
                continue
            cells = {"seconds": duration(one.seconds)} | {
                heading: f"{count(after.steps)} of {count(after.of_all)}"
                for heading, after in (("steps by then", one.own), ("base's steps", one.of_base))
            }
            ends = one.interval(len(compared))
            caveats = _other_task(experiment.tasks[one.variant])
            gains.append(Gain(experiment.name, one.variant, one.base, one.gain, one.gain_se, ends, cells, caveats))
    return gains


def found_gains(study: Study, quantity: str, decisive: int = 0) -> list[Gain]:
    """Return the gains of attentive variants in a quantity of findings.json.

    Args:
        study: all experiments.
        quantity: its name there.
        decisive: of several places on its scale, which one the gain is at; those at all are in the cells.
    """
    gains = []
    for experiment in study:
        pairs: dict[str, list[PairFinding]] = {}
        for one in experiment.findings.pairs if experiment.findings else ():
            if one.quantity == quantity and one.variant in experiment.pairs("attention"):
                pairs.setdefault(one.variant, []).append(one)
        for places in pairs.values():
            one = places[decisive]
            cells = {one.at: with_error(one.gain, one.gain_se) for one in places} if len(places) > 1 else {}
            cells |= {"variant's value": with_error(one.value, one.value_se), "over": _over(one)}
            weak = [SINGLE] if one.seeds == one.base_seeds == 1 else []
            caveats = [*_other_task(experiment.tasks[one.variant]), *weak]
            ends = (one.low, one.high)
            gains.append(Gain(experiment.name, one.variant, one.base, one.gain, one.gain_se, ends, cells, caveats))
    return gains


def _over(one: PairFinding) -> str:
    return f"{one.over}, {trainings(one.seeds, one.base_seeds)}"


def _other_task(task: str) -> list[str]:
    return [] if task == "density" else [f"task {task}"]


def _more_parameters(row: pd.Series, base: pd.Series) -> float:
    """Return by what share a variant has more parameters than its base."""
    return float(row["parameters"] / base["parameters"] - 1) if base["parameters"] else math.nan


def _caveats(row: pd.Series, base: pd.Series, task: str) -> list[str]:
    """Return what keeps a comparison from being one of trainings, at equal parameters and steps, for bits/dim."""
    caveats = [*_other_task(task), *([SINGLE] if row["base_gain_over"] == "images" else [])]
    more = _more_parameters(row, base)
    if abs(more) > EQUAL_PARAMETERS:
        caveats.append(f"{abs(more):.1%} {'more' if more > 0 else 'fewer'} parameters".replace("%", " %"))
    if row["train_steps"] != base["train_steps"]:
        caveats.append(f"{count(row['train_steps'])} steps against {count(base['train_steps'])}")
    return caveats


def _conditions(row: pd.Series, base: pd.Series) -> dict[str, str]:
    """Return what a variant and its base have been given."""
    steps = [count(one["train_steps"]) for one in (row, base)]
    more = _more_parameters(row, base)
    slower = row["train_seconds"] / base["train_seconds"] if base["train_seconds"] else math.nan
    return {
        "bits/dim": with_error(row["bits_per_dim"], row["bits_per_dim_se"]),
        "trainings": trainings(row["seeds"], base["seeds"]),
        "parameters": f"{'+' * (more >= 0)}{decimal(100 * more, 1)} %",
        "steps": steps[0] if steps[0] == steps[1] else " and ".join(steps),
        "seconds": f"{decimal(slower, 2)} times",
    }


def _part(study: Study, gains: Sequence[Gain], what: str, kind: Kind, unit: str, remedy: Remedy) -> str:
    """Return the part of a document on one quantity."""
    names = list(dict.fromkeys(one.experiment for one in gains))
    each = [(name, [one for one in gains if one.experiment == name]) for name in names]
    answer = f"**{tally(gains, what, AMONG[kind])}**\n"
    by_experiment = "".join(f"- `{name}`: {tally(own, what, AMONG[kind], within=True)}\n" for name, own in each)
    missing = _missing(study, gains, kind, remedy)
    parts = [answer, by_experiment if len(names) > 1 else "", gains_table(gains, unit) if gains else "", missing]
    return "\n".join(part for part in parts if part)


def _missing(study: Study, gains: Sequence[Gain], kind: Kind, remedy: Remedy) -> str:
    """Return which pairs of experiments with a report are not there, and why."""
    known = {(one.experiment, one.variant) for one in gains}
    lines = []
    for experiment in study:
        lacking = [variant for variant in experiment.pairs(kind) if (experiment.name, variant) not in known]
        if experiment.table is not None and lacking:
            names = "all variants" if len(lacking) == len(experiment.pairs(kind)) else join(lacking)
            lines.append(f"- `{experiment.name}`, {names}: {NOT_AVAILABLE}; {remedy(experiment)}\n")
    return "".join(lines)


def _measured(experiment: Experiment) -> str:
    return f"run: `dvc repro report@{experiment.name}`"


def _reported(experiment: Experiment) -> str:
    if experiment.findings is None:
        return f"run: `acf report --experiment {experiment.name}`"
    return _measured(experiment)


def _trained_longer(experiment: Experiment) -> str:
    if experiment.findings is None:
        return _reported(experiment)
    return "no variant without attention was trained for as many seconds"


def _bits(study: Study) -> str:
    return _part(study, bits_gains(study, "attention"), BITS, "attention", "bits/dim", _measured)


def _matched(study: Study) -> str:
    gains = found_gains(study, MATCHED)
    return _part(study, gains, WHOLE, "attention", "bits/dim", _trained_longer)


def _seconds(study: Study) -> str:
    return _part(study, seconds_gains(study, "attention"), EQUAL, "attention", "bits/dim", _measured)


def _bases(study: Study) -> str:
    if not any(experiment.pairs("base") for experiment in study):
        return "Not available: no experiment has two variants without attention, one of which is the other's base.\n"
    parts = [
        _part(study, bits_gains(study, "base"), BITS, "base", "bits/dim", _measured),
        _part(study, seconds_gains(study, "base"), EQUAL, "base", "bits/dim", _measured),
        convergence_part(study, "base"),
    ]
    titles = ("At equal steps", "At equal seconds", "Steps and seconds to the base's last value")
    return "\n".join(f"### {title}\n\n{part}" for title, part in zip(titles, parts, strict=True))


def _interpolation(study: Study) -> str:
    return _part(study, _paths(study), EXCESS, "attention", "bits/dim", _reported)


def _samples(study: Study) -> str:
    return _part(study, found_gains(study, "frechet"), DISTANCE, "attention", "distance", _reported)


def _noise(study: Study) -> str:
    return _part(study, _sigmas(study), RISE, "attention", "bits/dim", _reported)


def _neighbours(study: Study) -> str:
    return _part(study, found_gains(study, "noise-neighbours"), ERRORS, "attention", "share of images", _reported)


def _paths(study: Study) -> list[Gain]:
    return found_gains(study, "interpolation")


def _sigmas(study: Study) -> list[Gain]:
    return found_gains(study, "noise", decisive=-1)


def _at_equal_seconds(study: Study) -> dict[str, str]:
    """Return what whole trainings say, where there are any of as many seconds, and what validations say."""
    claim, attentive = "Fewer bits/dim, at equal seconds", AMONG["attention"]
    whole = found_gains(study, MATCHED)
    read_off = tally(seconds_gains(study, "attention"), EQUAL, attentive)
    return ({claim: tally(whole, WHOLE, attentive)} if whole else {}) | {f"{claim}, the longer training cut": read_off}


def _answers(study: Study) -> str:
    attentive = AMONG["attention"]
    said = {
        "Fewer bits/dim, at equal parameters and steps": tally(bits_gains(study, "attention"), BITS, attentive),
        **_at_equal_seconds(study),
        "Faster convergence": on_convergence(study, "attention"),
        "Better interpolation": tally(_paths(study), EXCESS, attentive),
        "Resilience to noise": tally(_sigmas(study), RISE, attentive),
        "A better base": tally(bits_gains(study, "base"), BITS, AMONG["base"]),
        "Certificates": on_certificates(study),
    }
    return "".join(f"- **{claim}**: {sentence}\n" for claim, sentence in said.items())


TOPICS: Mapping[str, Callable[[Study], str]] = {
    "answers": _answers,
    "experiments": experiments_part,
    "bits-per-dim": _bits,
    "equal-seconds": _seconds,
    "matched-seconds": _matched,
    "convergence": lambda study: convergence_part(study, "attention"),
    "interpolation": _interpolation,
    "samples": _samples,
    "noise": _noise,
    "noise-neighbours": _neighbours,
    "bases": _bases,
    "certificates": lambda study: f"{on_certificates(study)}\n",
    "attention": attention_part,
}
"""What writes each topic, markdown that ends with a line break."""
