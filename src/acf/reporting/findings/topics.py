"""The generated parts of documents: for each topic an answer in one sentence, one per experiment, and a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from acf.reporting.convergence import mean_curve
from acf.reporting.findings.answers import answers_part, by_base_part
from acf.reporting.findings.attention_use import attention_part
from acf.reporting.findings.gains import Gain, gains_table, tally
from acf.reporting.findings.pair_gains import (
    Study,
    bits_gains,
    depth_gains,
    found_gains,
    matched_gains,
    noise_gains,
    seconds_gains,
    steps_gains,
)
from acf.reporting.findings.quantities import BITS, DEEP, DISTANCE, EQUAL, ERRORS, EXCESS, RISE, STEPS, WHOLE
from acf.reporting.findings.speed import convergence_part
from acf.reporting.findings.study import AMONG, Experiment, Kind
from acf.reporting.findings.survey import experiments_part, on_certificates
from acf.reporting.wording import ABSENT, NOT_AVAILABLE, join, markdown_table

TITLES: dict[Kind, str] = {"attention": "With attention", "base": "Without attention"}
SHARES = {"a third": 1 / 3, "two thirds": 2 / 3, "all": 1.0}
"""Of the steps of a training, after which its validations are compared with those of its base."""
EACH_FOR_ITSELF = (
    "These intervals are three standard errors either side, each for itself: other than those of the other sections "
    "they are not widened for the number of variants, so that of many one may differ by chance."
)
PARTNER = "partner"
"""What a flow that takes the place of the base is called."""
Remedy = Callable[[Experiment, str], str]
"""Why a pair is not there, and what to do: of an experiment and a variant."""


def _part(
    study: Study, gains: Sequence[Gain], what: str, kind: Kind, unit: str, remedy: Remedy, other: str = "base"
) -> str:
    """Return the part of a document on one quantity; `other` is what a variant is compared with."""
    names = list(dict.fromkeys(one.experiment for one in gains))
    each = [(name, [one for one in gains if one.experiment == name]) for name in names]
    answer = f"**{tally(gains, what, AMONG[kind], other=other)}**\n"
    said = {name: tally(own, what, AMONG[kind], within=True, other=other) for name, own in each}
    by_experiment = "".join(f"- `{name}`: {sentence}\n" for name, sentence in said.items())
    missing = _missing(study, gains, kind, remedy)
    parts = [answer, by_experiment if len(names) > 1 else "", gains_table(gains, unit, other) if gains else "", missing]
    return "\n".join(part for part in parts if part)


def _missing(study: Study, gains: Sequence[Gain], kind: Kind, remedy: Remedy) -> str:
    """Return which pairs of experiments with a report are not there, and why."""
    known = {(one.experiment, one.variant) for one in gains}
    lines = []
    for experiment in study:
        lacking = [variant for variant in experiment.pairs(kind) if (experiment.name, variant) not in known]
        if experiment.table is None:
            continue
        together: dict[str, list[str]] = {}
        for variant in lacking:
            together.setdefault(remedy(experiment, variant), []).append(variant)
        for why, variants in together.items():
            names = "all variants" if len(variants) == len(experiment.pairs(kind)) else join(variants)
            lines.append(f"- `{experiment.name}`, {names}: {NOT_AVAILABLE}; {why}\n")
    return "".join(lines)


def _measured(experiment: Experiment, variant: str) -> str:
    flows = experiment.flows
    if {variant, base := experiment.bases[variant]} <= set(flows.index) and flows.loc[variant]["base"] != base:
        return _report(experiment)
    return experiment.remedy


def _report(experiment: Experiment) -> str:
    return f"run: `acf report --experiment {experiment.name}`"


def _reported(experiment: Experiment, variant: str) -> str:
    return _report(experiment) if experiment.findings is None else _measured(experiment, variant)


def _incomparable(experiment: Experiment) -> str:
    return f"seconds are not comparable: {experiment.incomparable_seconds}"


def _validated(experiment: Experiment, variant: str) -> str:
    if experiment.incomparable_seconds:
        return _incomparable(experiment)
    both = [mean_curve(experiment.curves.get(name, [])) for name in (variant, str(experiment.bases[variant]))]
    if None in both:
        return _measured(experiment, variant)
    return "the slower one was not validated yet when the faster training ended (`training.validate_every`)"


def _trained_longer(experiment: Experiment, variant: str) -> str:
    if experiment.incomparable_seconds:
        return _incomparable(experiment)
    if experiment.findings is None or variant not in experiment.flows.index:
        return _reported(experiment, variant)
    return "no variant without attention was trained for as many seconds on the same machine"


def _as_deep(experiment: Experiment, variant: str) -> str:
    if experiment.findings is None or variant not in experiment.flows.index:
        return _reported(experiment, variant)
    return "no variant without attention that else differs in size alone has as many blocks"


def _bits(study: Study) -> str:
    return _part(study, bits_gains(study, "attention"), BITS, "attention", "bits/dim", _measured)


def _depth(study: Study) -> str:
    return _part(study, depth_gains(study), DEEP, "attention", "bits/dim", _as_deep, PARTNER)


def _matched(study: Study) -> str:
    return _part(study, matched_gains(study), WHOLE, "attention", "bits/dim", _trained_longer, PARTNER)


def _seconds(study: Study) -> str:
    return _part(study, seconds_gains(study, "attention"), EQUAL, "attention", "bits/dim", _validated)


def _along(study: Study) -> str:
    """Return what is gained in the course of training, with attention and without."""
    return "\n".join(f"#### {title}\n\n{_along_of(study, kind)}" for kind, title in TITLES.items())


def _along_of(study: Study, kind: Kind) -> str:
    by_share = dict(zip(SHARES, steps_gains(study, kind, list(SHARES.values())), strict=True))
    said = [f"- {tally(gains, f'{STEPS} {share} of the steps', AMONG[kind])}\n" for share, gains in by_share.items()]
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for share, gains in by_share.items():
        for one in gains:
            names = (f"`{one.experiment}`", one.variant, one.base, "; ".join(one.caveats) or ABSENT)
            cells.setdefault(names, {})[share] = f"{one.text}, {one.found}"
    rows = [[*names[:3], *(of.get(share, ABSENT) for share in SHARES), names[3]] for names, of in cells.items()]
    heads = ["experiment", "variant", "base", *(f"after {share}" for share in SHARES), "caveats"]
    return "".join(said) + (f"\n{markdown_table(heads, rows, left=3)}" if rows else "")


def _bases(study: Study) -> str:
    if not any(experiment.pairs("base") for experiment in study):
        return "Not available: no experiment has two variants without attention, one of which is the other's base.\n"
    parts = [
        _part(study, bits_gains(study, "base"), BITS, "base", "bits/dim", _measured),
        _part(study, seconds_gains(study, "base"), EQUAL, "base", "bits/dim", _validated),
        convergence_part(study, "base"),
    ]
    titles = ("By test bits/dim", "At equal seconds", "Steps and seconds to the base's last value")
    return "\n".join(f"### {title}\n\n{part}" for title, part in zip(titles, parts, strict=True))


def _interpolation(study: Study) -> str:
    return _part(study, found_gains(study, "interpolation"), EXCESS, "attention", "bits/dim", _reported)


def _samples(study: Study) -> str:
    gains = found_gains(study, "frechet")
    part = _part(study, gains, DISTANCE, "attention", "distance", _reported)
    return part + (f"\n{EACH_FOR_ITSELF}\n" if gains else "")


def _noise(study: Study) -> str:
    """Return what attention changes under noise, and what other changes do, such as more blocks."""
    parts = [
        f"### {title}\n\n{_part(study, noise_gains(study, kind), RISE, kind, 'bits/dim', _reported)}"
        for kind, title in TITLES.items()
    ]
    return "\n".join(parts)


def _neighbours(study: Study) -> str:
    return _part(study, found_gains(study, "noise-neighbours"), ERRORS, "attention", "share of images", _reported)


TOPICS: Mapping[str, Callable[[Study], str]] = {
    "answers": answers_part,
    "experiments": experiments_part,
    "bits-per-dim": _bits,
    "equal-depth": _depth,
    "equal-seconds": _seconds,
    "matched-seconds": _matched,
    "convergence": lambda study: convergence_part(study, "attention"),
    "along-training": _along,
    "interpolation": _interpolation,
    "samples": _samples,
    "noise": _noise,
    "noise-neighbours": _neighbours,
    "bases": _bases,
    "by-base": by_base_part,
    "certificates": lambda study: f"{on_certificates(study)}\n",
    "attention": attention_part,
}
"""What writes each topic, markdown that ends with a line break."""
