"""Whether the flows use their attention, and what that has to do with their gains: a part of documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from acf.reporting.attention_measures import DEPENDENCE, ENTROPY, USE, USE_OF_OTHERS, WEIGHT
from acf.reporting.findings.gains import HIGHER, LOWER, Gain
from acf.reporting.findings.pair_gains import bits_gains
from acf.reporting.findings.study import Experiment
from acf.reporting.sections.attention_section import EVEN
from acf.reporting.wording import ABSENT, NOT_AVAILABLE, decimal, markdown_table

NOTHING, OWN_POSITION, FAR = 0.05, 0.05, 0.5
"""The weight, the dependence, and the use over that of the other blocks below which attention counts as bringing
nothing, as on its own position alone, and as far from its bound."""
HEADINGS = ["experiment", "variant", "gain, bits/dim", "entropy", "dependence", "weight", "use", "use of others"]
FAULTS: Mapping[str, Callable[[Mapping[str, float]], bool]] = {
    "next to nothing": lambda of: of.get(WEIGHT, 1.0) < NOTHING,
    "own position alone": lambda of: of[DEPENDENCE] < OWN_POSITION,
    "a mean over positions": lambda of: of.get(ENTROPY, 0.0) >= EVEN,
    "far from its bound": lambda of: of[USE] < FAR * of.get(USE_OF_OTHERS, 0.0),
}
"""Ways in which attention changes little, and when it is so, of the measures of a variant that was audited."""
HOW_TO_READ = (
    f"A fault is a weight below {NOTHING} (*next to nothing*), a dependence below {OWN_POSITION} (*own position "
    f"alone*), an entropy of at least {EVEN} (*a mean over positions*, which a convolution can have for less), "
    f"or a use below {FAR} times that of the other blocks (*far from its bound*: the proof is loose at real images, so "
    "that these blocks change them by little)."
)


def attention_part(study: Sequence[Experiment]) -> str:
    """Return for each variant with attention how it uses it, and how often it helps with and without a fault."""
    gains = {(one.experiment, one.variant): one for one in bits_gains(study, "attention")}
    rows: list[list[str]] = []
    lacking: list[str] = []
    sound: list[Gain] = []
    faulty: list[Gain] = []
    for experiment in study:
        for variant in experiment.pairs("attention") if experiment.table is not None else ():
            measures, gain = experiment.measures(variant), gains.get((experiment.name, variant))
            if not {DEPENDENCE, USE} <= measures.keys():
                lacking.append(f"- `{experiment.name}`, {variant}: {NOT_AVAILABLE}; {experiment.remedy}\n")
                continue
            faults = [fault for fault, is_so in FAULTS.items() if is_so(measures)]
            if gain is not None and not gain.caveats:
                (faulty if faults else sound).append(gain)
            values = [_share(measures, name) for name in (ENTROPY, DEPENDENCE, WEIGHT, USE, USE_OF_OTHERS)]
            said = ABSENT if gain is None else f"{gain.text}, {gain.found}"
            rows.append([f"`{experiment.name}`", variant, said, *values, ", ".join(faults) or "none"])
    table = markdown_table([*HEADINGS, "fault"], rows, left=2) if rows else ""
    parts = [_tally(sound, faulty), table, f"{HOW_TO_READ}\n" if rows else "", "".join(lacking)]
    return "\n".join(part for part in parts if part) or f"{NOT_AVAILABLE}\n"


def _tally(sound: Sequence[Gain], faulty: Sequence[Gain]) -> str:
    parts = [
        f"{_number(gains, LOWER)} of {len(gains)} whose attention has {which} came out lower than the base, and "
        f"{_number(gains, HIGHER)} higher"
        for gains, which in ((sound, "no fault"), (faulty, "at least one"))
        if gains
    ]
    return f"**Test bits/dim of variants without caveats, beyond the error: {'; '.join(parts)}.**\n" if parts else ""


def _number(gains: Sequence[Gain], found: str) -> str:
    return str(sum(one.found == found for one in gains) or "none")


def _share(measures: Mapping[str, float], name: str) -> str:
    return decimal(measures[name], 2) if name in measures else ABSENT
