"""The sentences of a report, computed from its table."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from acf.reporting.headline import against_base, as_sizes, headline
from acf.reporting.paired_differences import PERCENT
from acf.reporting.pairing import Pairing
from acf.reporting.results import Results
from acf.reporting.wording import count, join, with_error

THRESHOLD = 3
"""Differences from baselines of more standard errors than this count as real."""
NO_DENSITY = "No variant of this experiment is trained for bits/dim; the section Labels has what they are trained for."
Rows = Mapping[str, pd.Series]

SEEN = {
    "images": "All rows see the same test images with the same noise",
    "rows": "All models see the same test rows",
}
ADDED = {
    "images": "log p(z), log-determinant and dequantisation add up to bits/dim.",
    "rows": "log p(z) and log-determinant add up to bits/dim, that of the density of standardised values: there are no "
    "grey levels, so there is no dequantisation, and bits/dim may be negative.",
}
RECONSTRUCTED = {
    "images": "The reconstruction error is the largest absolute difference between a test image and "
    "inverse(forward(image)).",
    "rows": "The reconstruction error is the largest absolute difference between a standardised test row and "
    "inverse(forward(row)).",
}


def verdict(table: pd.DataFrame, results: Results) -> list[str]:
    """Return sentences: which variant is better than its base, flows against baselines, the others, unequal conditions.

    The baselines are the one that gains are counted from and, where another one is better, that one too.
    """
    rows: Rows = {row["row"]: row for _, row in table.iterrows()}
    best = min(results.baselines.baselines, key=lambda name: rows[name]["bits_per_dim"])
    bases = {variant: base for variant, base in results.bases.items() if results.is_trained_for_density(variant)}
    sentence, named = (
        headline(rows, bases, results.unit, seconds_compare=not results.incomparable_seconds)
        if bases
        else (NO_DENSITY, None)
    )
    pairs = [
        (rows[variant], rows[base])
        for variant, base in bases.items()
        if base is not None and {variant, base} <= rows.keys()
    ]
    return [
        sentence,
        *(_against_baseline(rows, name, results) for name in dict.fromkeys([results.reference, best]) if bases),
        *(f"The {name} baseline is not available: {why}." for name, why in results.baselines.not_available.items()),
        *(against_base(variant, base, results.unit) for variant, base in pairs if variant["row"] != named),
        *(as_sizes(variant, base) for variant, base in pairs if variant["parameters"] != base["parameters"]),
        *_without_density(results),
        *_unequal(table, results.unit),
    ]


def notes(table: pd.DataFrame, results: Results) -> list[str]:
    """Return what the table's numbers mean, for the foot of the table."""
    flows = table[table["kind"] == "flow"]
    unit = results.unit
    lines = [f"bits/dim on test {unit}, lower is better, ± one standard error."]
    if (flows["se_over"] == "seeds").any():
        numbers = sorted(set(flows["seeds"]))
        seeds = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
        lines.append(
            f"Flows: mean over {seeds} seeds, standard error between the seeds; baselines: standard error over test "
            f"{unit}."
        )
    else:
        lines.append(f"The standard error is over test {unit} (one seed: differences between trainings are not in it).")
    return [
        *filter(None, [results.on_data]),
        *lines,
        f"Gain is the {results.reference} baseline's bits/dim minus the row's, and gain over base that of its base: "
        "for a flow with attention the one without that else differs in size alone, for other flows the first one "
        f"without attention. {SEEN[unit]}, so both are paired over {unit}, and so are their standard errors.",
        *_on_intervals(flows, unit),
        ADDED[unit],
        "The certificate is the proven Lipschitz bound of the worst block, rounded up; below 1 the flow is invertible.",
        *_on_labels(table),
        RECONSTRUCTED[unit],
        *results.notes_on_seconds,
    ]


def _on_labels(table: pd.DataFrame) -> list[str]:
    if "accuracy" not in table:
        return []
    return [
        "Accuracy is the share of test images whose most probable class is their label, cross-entropy the mean of "
        "-log p(label) in nats, calibration error the expected one over 15 bins of confidence (arXiv 1706.04599)."
    ]


def _on_intervals(flows: pd.DataFrame, unit: str) -> list[str]:
    compared = flows[flows["base_gain"].notna()]
    if compared.empty:
        return []
    number = len(compared)
    together = f" (Bonferroni, {number} comparisons)" if number > 1 else ""
    over = f"test {unit} only: another training of the same flow may differ by more, which one seed cannot tell"
    if (compared["base_gain_over"] != "images").all():
        df = int(compared["base_gain_training_df"].max())
        over = (
            f"test {unit} and over trainings, whose variance is taken as the same for all variants and estimated with "
            f"{df} degree{'s' * (df > 1)} of freedom"
        )
    return [
        f"{'All' if number > 1 else 'The'} interval{'s' * (number > 1)} of gains over bases hold{'s' * (number == 1)} "
        f"{'at once ' * (number > 1)}with {PERCENT}{together}, over {over}."
    ]


def _against_baseline(rows: Rows, name: str, results: Results) -> str:
    pairing = Pairing(results)
    variants = [variant for variant in results.metrics if variant in rows and results.is_trained_for_density(variant)]
    gains = {variant: pairing.gain(name, variant) for variant in variants}
    bits = with_error(rows[name]["bits_per_dim"], rows[name]["bits_per_dim_se"])
    if not variants:
        return f"No flow is measured yet; the {name} baseline has {bits} bits/dim."
    beyond = f"the {name} baseline ({bits} bits/dim) by more than {THRESHOLD} standard errors"
    wins = [variant for variant, gain in gains.items() if gain and gain.mean > THRESHOLD * gain.se]
    others = [variant for variant, gain in gains.items() if gain and variant not in wins]
    unknown = [variant for variant, gain in gains.items() if gain is None]
    apart = f" {join(unknown)} cannot be compared with it: not measured on the same {results.unit}." if unknown else ""
    if not wins:
        return f"No flow beats {beyond}.{apart}"
    beat = "beats" if len(wins) == 1 else "beat"
    if others:
        return f"{join(wins)} {beat} {beyond}; {join(others)} not.{apart}"
    return f"{join(wins) if len(wins) < 3 or unknown else f'All {len(wins)} flows'} {beat} {beyond}.{apart}"


def _without_density(results: Results) -> list[str]:
    names = [name for name, seeds in results.metrics.items() if seeds and not results.is_trained_for_density(name)]
    if not names:
        return []
    return [
        f"{join(names)}: trained for labels alone, so that these bits/dim, here and in all sections, are those of a "
        "density that was not trained; they are compared with no others."
    ]


def _unequal(table: pd.DataFrame, unit: str) -> list[str]:
    flows = table[table["kind"] == "flow"]
    sentences = []
    for column, what in (
        ("train_steps", "training steps"),
        ("test_images", f"test {unit}"),
        ("draws", "draws"),
    ):
        compared = flows if column == "train_steps" else table
        if compared[column].nunique() > 1:
            each = ", ".join(f"{name} {count(n)}" for name, n in zip(compared["row"], compared[column], strict=True))
            sentences.append(f"The rows differ in {what}: {each}.")
    return sentences
