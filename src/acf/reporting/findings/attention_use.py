"""Whether the flows use their attention, and what that has to do with their gains: a part of documents."""

from __future__ import annotations

from collections.abc import Sequence

from acf.reporting.attention_measures import DEPENDENCE, ENTROPY, USE, USE_OF_OTHERS, WEIGHT
from acf.reporting.findings.gains import HIGHER, LOWER, Gain
from acf.reporting.findings.pair_gains import bits_gains
from acf.reporting.findings.study import Experiment
from acf.reporting.wording import ABSENT, NOT_AVAILABLE, decimal, markdown_table

EVEN, LITTLE, ALONE, HALF = 0.99, 0.05, 0.05, 0.5
"""Entropy from which weights count as even, and weight, dependence and use, over that of other blocks, below which
attention counts as idle, on its own position alone, and far from its bound."""
HEADINGS = ["experiment", "variant", "gain, bits/dim", "entropy", "dependence", "weight", "use", "use of others"]
FAULTS = {
    "brings next to nothing": lambda of: of.get(WEIGHT, 1.0) < LITTLE,
    "own position alone": lambda of: of.get(DEPENDENCE, 1.0) < ALONE,
    "a mean over positions": lambda of: of.get(ENTROPY, 0.0) >= EVEN,
    "far from its bound": lambda of: of.get(USE, 1.0) < HALF * of.get(USE_OF_OTHERS, 0.0),
}
"""What keeps attention from doing more than a flow without it, and when it is so, of the measures of a variant."""


def attention_part(study: Sequence[Experiment]) -> str:
    """Return for each variant with attention how it uses it, and how often it helps with and without a fault."""
    gains = {(one.experiment, one.variant): one for one in bits_gains(study, "attention")}
    rows: list[list[str]] = []
    lacking: list[str] = []
    sound: list[Gain] = []
    faulty: list[Gain] = []
    for experiment in study:
        for variant in experiment.pairs("attention") if experiment.table is not None else ():
            measures = experiment.measures(variant)
            if not measures:
                lacking.append(f"{variant} in `{experiment.name}`")
                continue
            faults = [fault for fault, is_so in FAULTS.items() if is_so(measures)]
            gain = gains.get((experiment.name, variant))
            if gain is not None and not gain.caveats:
                (faulty if faults else sound).append(gain)
            values = [_share(measures, name) for name in (ENTROPY, DEPENDENCE, WEIGHT, USE, USE_OF_OTHERS)]
            said = gain.text if gain is not None else ABSENT
            rows.append([f"`{experiment.name}`", variant, said, *values, ", ".join(faults) or "none"])
    if not rows:
        return f"{NOT_AVAILABLE}\n"
    missing = (
        f"\n{', '.join(lacking)}: {NOT_AVAILABLE}; run: `dvc repro` of the experiment's report.\n" if lacking else ""
    )
    return f"{_tally(sound, faulty)}\n{markdown_table([*HEADINGS, 'fault'], rows, left=2)}{missing}"


def _tally(sound: Sequence[Gain], faulty: Sequence[Gain]) -> str:
    parts = [
        f"of {len(gains)} whose attention has {which}, {_number(gains, LOWER)} came out lower than the base in test "
        f"bits/dim and {_number(gains, HIGHER)} higher"
        for gains, which in ((sound, "none of these faults"), (faulty, "one"))
        if gains
    ]
    if not parts:
        return ""
    return f"**Of the attentive variants without caveats, {'; '.join(parts)}, beyond the error.**\n"


def _number(gains: Sequence[Gain], found: str) -> str:
    return str(sum(one.found == found for one in gains) or "none")


def _share(measures: dict[str, float], name: str) -> str:
    return decimal(measures[name], 2) if name in measures else ABSENT
