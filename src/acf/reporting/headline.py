"""The sentences on variants against their bases: what is better, by how much, how surely and at what cost."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from acf.reporting.paired_differences import PERCENT
from acf.reporting.wording import count, interval, join, with_error


def headline(
    rows: Mapping[str, pd.Series],
    bases: Mapping[str, str | None],
    unit: str,
    seconds_compare: bool,
) -> tuple[str, str | None]:
    """Return the first sentence of a report, and the variant whose numbers it gives (None if it gives none).

    A variant is better than its base if the whole interval of its gain, one of all that hold at once, is above 0. One
    that was trained for as many steps as its base comes before others, whatever their gains.

    Args:
        rows: of the comparison table, by name.
        bases: per variant its base, None where it has none.
        unit: what test samples are called, "images" or "rows".
        seconds_compare: whether seconds of training can be compared.
    """
    compared = [rows[name] for name in bases if name in rows and pd.notna(rows[name]["base_gain"])]
    if not compared:
        if any(bases.values()):
            return f"No variant can be compared with its base: they are not measured yet on the same {unit}.", None
        return "No variant of this experiment has a base to be compared with.", None

    def fairly(row: pd.Series) -> tuple[bool, float]:
        return row["train_steps"] == rows[row["base"]]["train_steps"], row["base_gain"]

    best = max(compared, key=fairly)
    base = rows[best["base"]]
    better = [row for row in compared if row["base_gain_low"] > 0]
    if not better:
        pairs = len(compared)
        none = f"None of {pairs} variants is better than its base: " if pairs > 1 else ""
        closest = " comes closest, it" if pairs > 1 else ""
        return (
            f"{none}{best['row']}{closest} {_compared(best)} ({_surely(best, base, unit)}), "
            f"{_cost(best, base, seconds_compare)}.",
            best["row"],
        )
    best = max(better, key=fairly)
    base = rows[best["base"]]
    others = [row["row"] for row in better if row is not best]
    also = f"; also better than {'their bases' if len(others) > 1 else 'its base'}: {join(others)}" if others else ""
    how = f"{best['row']} {_compared(best)} ({_surely(best, base, unit)}), {_cost(best, base, seconds_compare)}"
    return f"{how}{also}.", best["row"]


def against_base(variant: pd.Series, base: pd.Series, unit: str = "images") -> str:
    """Return whether a variant is better or worse than its base, beyond the error."""
    if pd.isna(variant["base_gain"]):
        return f"{variant['row']} cannot be compared with {base['row']}: they are not measured on the same {unit}."
    return f"{variant['row']} {_compared(variant)} ({_surely(variant, base, unit)})."


def as_sizes(variant: pd.Series, base: pd.Series) -> str:
    """Return the numbers of parameters of two rows that differ in them."""
    own, other = count(variant["parameters"]), count(base["parameters"])
    return f"{variant['row']} has {own} parameters, {_relation(variant, base)} than {base['row']} ({other})."


def _compared(variant: pd.Series) -> str:
    gain, error = variant["base_gain"], variant["base_gain_se"]
    amount = f"{with_error(abs(gain), error)} bits/dim"
    if variant["base_gain_low"] <= 0 <= variant["base_gain_high"]:
        direction = "lower" if gain > 0 else "higher"
        return f"does not differ from {variant['base']} beyond the error, {amount} {direction}"
    return f"is {'better' if gain > 0 else 'worse'} than {variant['base']} by {amount}"


def _surely(variant: pd.Series, base: pd.Series, unit: str) -> str:
    """Return the interval of a gain, and over what it is."""
    ends = interval(variant["base_gain_low"], variant["base_gain_high"], variant["base_gain_se"])
    number = variant["comparisons"]
    together = f", one of {number} that hold at once" if number > 1 else ""
    images = f"{count(variant['test_images'])} test {unit}"
    own, other = int(variant["seeds"]), int(base["seeds"])
    if variant["base_gain_over"] == "images":
        over = f"over {images} only, one training each"
    elif own == other:
        over = f"over {images} and {own} seed{'s' * (own > 1)} each"
    else:
        over = f"over {images} and seeds, {own} of {variant['row']} and {other} of {base['row']}"
    return f"{PERCENT} interval of the gain {ends}{together}, {over}"


def _cost(variant: pd.Series, base: pd.Series, seconds_compare: bool) -> str:
    parts = []
    if seconds_compare and base["train_seconds"] > 0:
        apart = "" if variant["device"] == base["device"] else ", though on other devices"
        parts.append(f"at {variant['train_seconds'] / base['train_seconds']:.2f} times its training seconds{apart}")
    same = variant["parameters"] == base["parameters"]
    parts.append("with as many parameters" if same else f"with {_relation(variant, base)} parameters")
    if variant["train_steps"] != base["train_steps"]:
        parts.append(f"after {count(variant['train_steps'])} instead of {count(base['train_steps'])} training steps")
    return join(parts)


def _relation(variant: pd.Series, base: pd.Series) -> str:
    if not base["parameters"]:
        return "more"
    ratio = variant["parameters"] / base["parameters"] - 1
    return f"{abs(ratio):.1%} {'more' if ratio > 0 else 'fewer'}"
