"""The generated parts of documents: for each topic an answer in one sentence, one per experiment, and a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from acf.reporting.convergence import mean_curve
from acf.reporting.findings.gains import ANSWER_HEADINGS, Gain, answer_cells, gains_table, tally
from acf.reporting.findings.pair_gains import (
    Study,
    bits_gains,
    depth_gains,
    found_gains,
    matched_gains,
    seconds_gains,
    steps_gains,
)
from acf.reporting.findings.speed import convergence_part, on_convergence
from acf.reporting.findings.study import Experiment, Kind
from acf.reporting.findings.survey import attention_part, experiments_part, on_certificates
from acf.reporting.wording import ABSENT, NOT_AVAILABLE, join, markdown_table

BITS, DEEP, WHOLE, EQUAL, STEPS, EXCESS, DISTANCE, RISE, ERRORS = (
    "test bits/dim",
    "test bits/dim with as many blocks",
    "test bits/dim after as many seconds",
    "validation bits/dim at equal seconds",
    "validation bits/dim after",
    "excess bits/dim halfway on great circles",
    "the Fréchet distance",
    "the rise of bits/dim under the strongest noise",
    "the error rate of nearest neighbours under the strongest noise",
)
TITLES: dict[Kind, str] = {"attention": "With attention", "base": "Without attention"}
AMONG: dict[Kind, str] = {"attention": "attentive variants", "base": "variants without attention"}
SHARES = {"a third": 1 / 3, "two thirds": 2 / 3, "all": 1.0}
"""Of the steps of a training, after which its validations are compared with those of its base."""
HOW_TO_READ = (
    "Counted are the attentive variants of all experiments whose value came out lower than that of their base, the "
    "same flow without attention (at equal depth one of as many blocks; at equal seconds a deeper one, or one trained "
    "for longer), which is better, or "
    "higher, beyond the error, and those of which that is undecided. The last column has those with a caveat, such "
    "as one training each, which is no evidence for an architecture. The answer is that of the others: *yes* if all "
    "are lower, *in part* if some are and none is higher, *mixed* if some are lower and some higher, *not found* if "
    "some are higher and none is lower, *undecided* if none is either, and *not available* if there are none."
)
EACH_FOR_ITSELF = (
    "These intervals are three standard errors either side, each for itself: other than those of the other sections "
    "they are not widened for the number of variants, so that of many one may differ by chance."
)
Remedy = Callable[[Experiment, str], str]
"""Why a pair is not there, and what to do: of an experiment and a variant."""


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
    return f"run: `dvc repro report@{experiment.name}`"


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
    return _part(study, depth_gains(study), DEEP, "attention", "bits/dim", _as_deep)


def _matched(study: Study) -> str:
    return _part(study, matched_gains(study), WHOLE, "attention", "bits/dim", _trained_longer)


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
    return _part(study, _paths(study), EXCESS, "attention", "bits/dim", _reported)


def _samples(study: Study) -> str:
    gains = found_gains(study, "frechet")
    part = _part(study, gains, DISTANCE, "attention", "distance", _reported)
    return part + (f"\n{EACH_FOR_ITSELF}\n" if gains else "")


def _noise(study: Study) -> str:
    """Return what attention changes under noise, and what other changes do, such as more blocks."""
    parts = [
        f"### {title}\n\n{_part(study, _sigmas(study, kind), RISE, kind, 'bits/dim', _reported)}"
        for kind, title in TITLES.items()
    ]
    return "\n".join(parts)


def _neighbours(study: Study) -> str:
    return _part(study, found_gains(study, "noise-neighbours"), ERRORS, "attention", "share of images", _reported)


def _paths(study: Study) -> list[Gain]:
    return found_gains(study, "interpolation")


def _sigmas(study: Study, kind: Kind) -> list[Gain]:
    return found_gains(study, "noise", kind, decisive=-1)


def _answers(study: Study) -> str:
    """Return a table of the claims on attention that are gains, and a sentence on each of the other topics."""
    claims = {
        "Fewer bits/dim, at equal parameters and steps": (BITS, bits_gains(study, "attention")),
        "Fewer bits/dim, at equal depth": (DEEP, depth_gains(study)),
        "Fewer bits/dim, at equal seconds": (WHOLE, matched_gains(study)),
        "Better interpolation": (EXCESS, _paths(study)),
        "Better samples": (DISTANCE, found_gains(study, "frechet")),
        "Resilience to noise": (RISE, _sigmas(study, "attention")),
        "Resilience to noise, in latent space": (ERRORS, found_gains(study, "noise-neighbours")),
    }
    rows = [[claim, what, *answer_cells(gains)] for claim, (what, gains) in claims.items()]
    said = {
        "Faster convergence": on_convergence(study, "attention"),
        "Other flows without attention": tally(bits_gains(study, "base"), BITS, AMONG["base"]),
        "Certificates": on_certificates(study),
    }
    bullets = "".join(f"- **{claim}**: {sentence}\n" for claim, sentence in said.items())
    return f"{markdown_table(['claim', 'measured by', *ANSWER_HEADINGS], rows, left=3)}\n{HOW_TO_READ}\n\n{bullets}"


TOPICS: Mapping[str, Callable[[Study], str]] = {
    "answers": _answers,
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
    "certificates": lambda study: f"{on_certificates(study)}\n",
    "attention": attention_part,
}
"""What writes each topic, markdown that ends with a line break."""
