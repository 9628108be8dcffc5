"""The sentences of a report, computed from its table."""

from __future__ import annotations

import pandas as pd

from acf.reporting.comparison import difference
from acf.reporting.results import Results
from acf.reporting.wording import count, with_error

THRESHOLD = 3
"""Differences of more standard errors than this count as real."""


def verdict(table: pd.DataFrame, results: Results) -> list[str]:
    """Return sentences: flows against baselines, attention against its base, unequal conditions.

    The baselines are the one that gains are counted from and, where another one is better, that one too.
    """
    rows = {row["row"]: row for _, row in table.iterrows()}
    flows = table[table["kind"] == "flow"]
    best = min(results.baselines.baselines, key=lambda name: rows[name]["bits_per_dim"])
    pairs = [(rows[variant], rows[base]) for variant, base in results.bases.items() if variant in rows and base in rows]
    return [
        *(_against_baseline(flows, rows[name]) for name in dict.fromkeys([results.reference, best])),
        *(f"The {name} baseline is not available: {why}." for name, why in results.baselines.not_available.items()),
        *(_against_base(variant, base) for variant, base in pairs),
        *(_sizes(variant, base) for variant, base in pairs if variant["parameters"] != base["parameters"]),
        *_unequal(table),
    ]


def notes(table: pd.DataFrame, results: Results) -> list[str]:
    """Return what the table's numbers mean, for the foot of the table."""
    flows = table[table["kind"] == "flow"]
    lines = ["bits/dim on test images, lower is better, ± one standard error."]
    if (flows["se_over"] == "seeds").any():
        lines.append(
            f"Flows: mean over {flows['seeds'].iloc[0]} seeds, standard error between the seeds; "
            "baselines: standard error over test images."
        )
    else:
        lines.append("The standard error is over test images (one seed: differences between trainings are not in it).")
    return [
        *lines,
        f"Gain is the {results.reference} baseline's bits/dim minus the row's. The two errors are combined as if "
        "independent, each the larger of the ones over images and over seeds; all rows see the same "
        "test images, so this is cautious (a paired error is not available).",
        "log p(z), log-determinant and dequantisation add up to bits/dim.",
        "The certificate is the proven Lipschitz bound of the worst block, rounded up; below 1 the flow is invertible.",
        "The reconstruction error is the largest absolute difference between a test image and inverse(forward(image)).",
    ]


def _against_baseline(flows: pd.DataFrame, baseline: pd.Series) -> str:
    if flows.empty:
        bits = with_error(baseline["bits_per_dim"], baseline["bits_per_dim_se"])
        return f"No flow is evaluated yet; the {baseline['row']} baseline has {bits} bits/dim."
    gains = [difference(baseline, flow) for _, flow in flows.iterrows()]
    wins = pd.Series([gain > THRESHOLD * error for gain, error in gains], index=flows.index)
    bits = with_error(baseline["bits_per_dim"], baseline["bits_per_dim_se"])
    beyond = f"the {baseline['row']} baseline ({bits} bits/dim) by more than {THRESHOLD} standard errors"
    if not wins.any():
        return f"No flow beats {beyond}."
    names = _join(flows["row"][wins])
    beat = "beats" if wins.sum() == 1 else "beat"
    if not wins.all():
        return f"{names} {beat} {beyond}; {_join(flows['row'][~wins])} not."
    return f"{names if len(flows) < 3 else f'All {len(flows)} flows'} {beat} {beyond}."


def _against_base(variant: pd.Series, base: pd.Series) -> str:
    gain, error = difference(base, variant)
    amount = f"{with_error(abs(gain), error)} bits/dim"
    if abs(gain) <= THRESHOLD * error:
        direction = "lower" if gain > 0 else "higher"
        return f"{variant['row']} does not differ from {base['row']} beyond the noise ({amount} {direction})."
    better = "better" if gain > 0 else "worse"
    return f"{variant['row']} is {better} than {base['row']} beyond the noise, by {amount}."


def _sizes(variant: pd.Series, base: pd.Series) -> str:
    ratio = variant["parameters"] / base["parameters"] - 1
    relation = f"{abs(ratio):.1%} {'more' if ratio > 0 else 'fewer'} than {base['row']}"
    own, other = count(variant["parameters"]), count(base["parameters"])
    return f"{variant['row']} has {own} parameters, {relation} ({other})."


def _unequal(table: pd.DataFrame) -> list[str]:
    flows = table[table["kind"] == "flow"]
    sentences = []
    for column, what in (
        ("train_steps", "training steps"),
        ("test_images", "test images"),
        ("draws", "draws"),
    ):
        compared = flows if column == "train_steps" else table
        if compared[column].nunique() > 1:
            each = ", ".join(f"{name} {count(n)}" for name, n in zip(compared["row"], compared[column], strict=True))
            sentences.append(f"The rows differ in {what}: {each}.")
    return sentences


def _join(names: pd.Series) -> str:
    *most, last = list(names)
    return f"{', '.join(most)} and {last}" if most else last
