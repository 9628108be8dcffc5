"""Gains of variants over their bases from several experiments, in one sentence or one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from acf.reporting.wording import (
    ABSENT,
    NOT_AVAILABLE,
    decimal,
    interval,
    join,
    markdown_table,
    trainings,
    with_error,
)

DECIMALS = 4
"""Of a gain whose error is not known."""
LOWER, HIGHER, UNDECIDED, UNKNOWN = "lower", "higher", "undecided", "not known"
SINGLE = trainings(1, 1)
"""The caveat of a pair whose error says nothing of how trainings differ."""
ANSWER_HEADINGS = ["answer", LOWER, UNDECIDED, HIGHER, "with caveats"]
"""Headings of the cells of `answer_cells`."""


@dataclass(frozen=True)
class Gain:
    """How much lower the value of a variant is than that of its base, of a quantity of which less is better.

    Attributes:
        experiment: both are of it.
        variant: the variant.
        base: its base.
        gain: the base's value minus the variant's.
        se: standard error; None where it is not known.
        ends: of the interval; None where it is not known.
        cells: what a table says beside it, by heading.
        caveats: in what else than the one thing the two differ, or the comparison is weak.
    """

    experiment: str
    variant: str
    base: str
    gain: float
    se: float | None
    ends: tuple[float, float] | None
    cells: Mapping[str, str] = field(default_factory=dict)
    caveats: Sequence[str] = ()

    @property
    def name(self) -> str:
        """The variant, and the experiment that it is of."""
        return f"{self.variant} in `{self.experiment}`"

    @property
    def text(self) -> str:
        """The gain with its standard error, or alone where that is not known."""
        return decimal(self.gain, DECIMALS) if self.se is None else with_error(self.gain, self.se)

    @property
    def found(self) -> str:
        """Whether the variant's value is lower than the base's or higher: on which side of 0 the interval lies."""
        if self.ends is None:
            return UNKNOWN
        low, high = self.ends
        return LOWER if low > 0 else HIGHER if high < 0 else UNDECIDED


def tally(gains: Sequence[Gain], what: str, among: str, within: bool = False, other: str = "base") -> str:
    """Return how many variants have lower values than their bases, and from where to where gains go.

    Args:
        gains: of all variants, of one quantity.
        what: the quantity.
        among: what the variants are called, in the plural.
        within: whether all are of one experiment, which is not named again.
        other: what the flow is called that a variant is compared with.
    """
    if not gains:
        return "Not available: no pair is measured yet."
    what = f"{what[0].upper()}{what[1:]}"
    if len(gains) == 1:
        return _single(gains[0], what, within, other)
    of_kind = {kind: [one for one in gains if one.found == kind] for kind in (LOWER, HIGHER, UNDECIDED, UNKNOWN)}
    lower, higher = of_kind[LOWER], of_kind[HIGHER]
    parts = [
        f"lower than the {other}'s in {_number(lower)} of {len(gains)} {among}{_named(lower, within)}",
        f"higher in {_number(higher)}{_named(higher, within)}",
    ]
    if undecided := of_kind[UNDECIDED]:
        parts.append(f"undecided in {len(undecided)}{_with_caveats(undecided)}")
    if unknown := of_kind[UNKNOWN]:
        parts.append(f"with an error that is not known in {len(unknown)}{_with_caveats(unknown)}")
    least, most = (pick(gains, key=lambda one: one.gain) for pick in (min, max))
    ends = [f"{one.text} ({_name(one, within)}{', error not known' * (one.se is None)})" for one in (least, most)]
    return f"{what} came out {join(parts)}; gains go from {' to '.join(ends)}."


def answer_cells(gains: Sequence[Gain]) -> list[str]:
    """Return the cells under `ANSWER_HEADINGS` of all gains in one quantity.

    The answer is that of the pairs without caveats: "yes" if all of them are lower than their bases, "in part" if some
    are and none is higher, "mixed" if some are lower and some higher, "no" if all are higher, "not found" if some are
    higher and none is lower, "undecided" if none is either, "with caveats only" if there are none without, and "not
    available" if there are none at all.
    """
    firm = [one for one in gains if not one.caveats]
    lower, undecided, higher = (sum(one.found == kind for one in firm) for kind in (LOWER, UNDECIDED, HIGHER))
    if not firm:
        answer = "with caveats only" if gains else NOT_AVAILABLE
    elif lower and higher:
        answer = "mixed"
    elif lower:
        answer = "yes" if lower == len(firm) else "in part"
    else:
        answer = "no" if higher == len(firm) else "not found" if higher else UNDECIDED
    others = [one.found for one in gains if one.caveats]
    of_others = join([f"{others.count(kind)} {kind}" for kind in dict.fromkeys(others)]) if others else ABSENT
    return [answer, *(map(str, (lower, undecided, higher)) if firm else [ABSENT] * 3), of_others]


def gains_table(gains: Sequence[Gain], unit: str, other: str = "base") -> str:
    """Return the gains as a table in markdown.

    Args:
        gains: at least one; what one of them has no cell for is a dash.
        unit: of a gain.
        other: what the flow is called that a variant is compared with.
    """
    more = list(dict.fromkeys(heading for one in gains for heading in one.cells))
    heads = ["experiment", "variant", other, f"gain, {unit}", "interval", "found", *more]
    rows = [
        [
            *(f"`{one.experiment}`", one.variant, one.base, one.text),
            ABSENT if one.ends is None or one.se is None else interval(*one.ends, one.se),
            *(one.found, *(one.cells.get(heading, ABSENT) for heading in more)),
        ]
        for one in gains
    ]
    if any(one.caveats for one in gains):
        heads.append("caveats")
        rows = [[*row, "; ".join(one.caveats) or ABSENT] for row, one in zip(rows, gains, strict=True)]
    return markdown_table(heads, rows, left=3)


def _single(one: Gain, what: str, within: bool, other: str) -> str:
    came = {
        LOWER: f"lower than that of its {other} {one.base}",
        HIGHER: f"higher than that of its {other} {one.base}",
        UNDECIDED: f"undecided against its {other} {one.base}",
        UNKNOWN: f"with an error against its {other} {one.base} that is not known",
    }
    gain = ", ".join([f"gain {one.text}", *one.caveats])
    return f"{what} of {_name(one, within)} came out {came[one.found]}: {gain}."


def _name(one: Gain, within: bool) -> str:
    return one.variant if within else one.name


def _number(found: Sequence[Gain]) -> str:
    return str(len(found) or "none")


def _with_caveats(found: Sequence[Gain]) -> str:
    number = sum(bool(one.caveats) for one in found)
    return f" ({number} with caveats)" if number else ""


def _named(found: Sequence[Gain], within: bool) -> str:
    """Return the names in brackets, those of one experiment and of the same caveats together."""
    together: dict[tuple[str, ...], list[str]] = {}
    for one in found:
        together.setdefault((one.experiment, *one.caveats), []).append(one.variant)
    texts = [
        ", ".join([join(variants) + ("" if within else f" in `{experiment}`"), *caveats])
        for (experiment, *caveats), variants in together.items()
    ]
    return f" ({'; '.join(texts)})" if texts else ""
