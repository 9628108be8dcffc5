"""The report's section on flows with classification heads: accuracy, calibration, and how variants differ."""

from __future__ import annotations

import math
from itertools import combinations
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from acf.reporting.page_parts import Figure, Section, Table
from acf.reporting.paired_differences import PERCENT, Row
from acf.reporting.paired_rows import PairedRows, mean_text
from acf.reporting.results import Results
from acf.reporting.schemas import Classification
from acf.reporting.style import BASELINE_COLOUR, Looks, draw_figure
from acf.reporting.wording import ABSENT, count, decimal, interval, with_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def labels_section(results: Results, looks: Looks) -> Section | None:
    """Return the section; None where no flow has classification heads."""
    found = {
        variant: [metrics.classification for metrics in seeds if metrics.classification is not None]
        for variant, seeds in results.metrics.items()
    }
    found = {variant: seeds for variant, seeds in found.items() if seeds}
    if not found:
        return None
    pairs = list(combinations(found, 2))
    right, likely = (_rows(results, list(found), name, len(pairs)) for name in ("correct", "label_log_prob"))
    tables = [_measures(results, found, right, likely)]
    if compared := [pair for pair in pairs if _alike(right, pair)]:
        tables.append(_differences(compared, right))
    return Section(
        "labels",
        "Labels",
        _sentences(found, right, compared),
        tables,
        [_reliability(found, looks), _accuracy(results, list(found), looks)],
        _notes(found, right),
    )


def _rows(results: Results, variants: list[str], name: str, comparisons: int) -> PairedRows:
    rows = {}
    for variant in variants:
        # A variant whose task was changed may have seeds that were trained without labels before.
        labelled = [metrics.seed for metrics in results.metrics[variant] if metrics.classification is not None]
        values = [results.labels[variant, seed][name] for seed in labelled]
        if len({len(of_seed) for of_seed in values}) == 1 < len(values[0]):
            rows[variant] = Row(np.stack(values))
    return PairedRows(rows, {}, max(comparisons, 1))


def _alike(rows: PairedRows, pair: tuple[str, str]) -> bool:
    """Whether two variants are measured, and on equally many images."""
    return {*pair} <= rows.rows.keys() and rows.rows[pair[0]].images == rows.rows[pair[1]].images


def _sentences(found: dict[str, list[Classification]], right: PairedRows, compared: list[tuple[str, str]]) -> list[str]:
    if not right.rows:
        return []
    best = max(right.rows, key=lambda variant: right.mean(variant).mean)
    sentences = [f"{best} tells the class of a test image most often, with accuracy {mean_text(right.mean(best))}."]
    if len(right.rows) == 1:
        sentences = [f"{best} tells the class of a test image with accuracy {mean_text(right.mean(best))}."]
    apart = []
    for pair in compared:
        low, high = right.between(*pair).interval(right.comparisons)
        if low > 0 or high < 0:
            better, worse = pair if low > 0 else pair[::-1]
            apart.append(f"{better} is more accurate than {worse} by {mean_text(right.between(better, worse))}.")
    if compared and not apart:
        apart = ["No two models differ in accuracy beyond the error."]
    chance = [
        variant
        for variant, seeds in found.items()
        if fmean(one.calibration_error for one in seeds) <= fmean(one.calibration_error_floor for one in seeds)
    ]
    return [
        *sentences,
        *apart,
        *(f"The calibration error of {variant} is not above that of a calibrated model." for variant in chance),
    ]


def _measures(results: Results, found: dict[str, list[Classification]], right: PairedRows, likely: PairedRows) -> Table:
    rows = []
    for variant, seeds in found.items():
        errors = [one.calibration_error for one in seeds]
        several = len(errors) > 1
        error = float(np.std(errors, ddof=1)) / math.sqrt(len(errors)) if several else seeds[0].calibration_error_se
        likelihood = likely.mean(variant) if variant in likely.rows else None
        rows.append(
            [
                variant,
                results.tasks[variant],
                mean_text(right.mean(variant)) if variant in right.rows else ABSENT,
                with_error(-likelihood.mean, likelihood.se) if likelihood else ABSENT,
                with_error(fmean(errors), error),
                decimal(fmean(one.calibration_error_floor for one in seeds)),
            ]
        )
    heads = ["model", "task", "accuracy", "cross-entropy", "calibration error", "of a calibrated model"]
    return Table(
        heads, rows, "How heads tell the labels of test images; cross-entropy in nats; ± one standard error", 2
    )


def _differences(compared: list[tuple[str, str]], right: PairedRows) -> Table:
    rows = []
    for one, other in compared:
        found = right.between(one, other)
        low, high = found.interval(right.comparisons)
        first, second = right.rows[one].bits, right.rows[other].bits
        alone = len(first) == len(second) == 1
        only_first, only_second = int((first > second).sum()), int((second > first).sum())
        rows.append(
            [
                one,
                other,
                mean_text(found),
                interval(low, high, found.se),
                f"{count(only_first)}, {count(only_second)}" if alone else ABSENT,
                f"{mcnemar(only_first, only_second):.2g}".replace("-", "−") if alone else ABSENT,
            ]
        )
    heads = ["model", "minus", "difference of accuracy", f"{PERCENT} interval", "only one right", "McNemar p"]
    return Table(heads, rows, "Differences of accuracy, paired over test images, ± one standard error", 2)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (Psychometrika 12, 1947).

    If two models are equally accurate, each image that only one of them tells is told by either with probability 1/2.

    Args:
        only_first: number of images whose class the first model alone tells.
        only_second: the same of the second.
    """
    from scipy.special import bdtr  # distribution function of the binomial law

    return min(1.0, 2 * float(bdtr(min(only_first, only_second), only_first + only_second, 0.5)))


def _reliability(found: dict[str, list[Classification]], looks: Looks) -> Figure:
    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], "--", color=BASELINE_COLOUR, lw=1, label="calibrated")
        for variant, seeds in found.items():
            look = looks[variant]
            for number, one in enumerate(seeds):
                confidence, accuracy = ([getattr(bin, name) for bin in one.bins] for name in ("confidence", "accuracy"))
                errors = [math.sqrt(bin.confidence * (1 - bin.confidence) / bin.images) for bin in one.bins]
                label = variant if number == 0 else None
                axes.errorbar(confidence, accuracy, errors, ms=5, lw=0, elinewidth=1, label=label, **look.points)
        axes.set(xlabel="mean confidence of a bin", ylabel="accuracy in the bin", xlim=(0, 1.02), ylim=(-0.02, 1.05))

    alt = f"reliability diagram, accuracy against confidence: {', '.join(found)}"
    caption = (
        "Reliability: accuracy of the images in each bin of confidence, ± the standard error that it has under a "
        "calibrated model; bins of few images have wide ones."
    )
    return draw_figure("reliability", alt, caption, 3.4, draw)


def _accuracy(results: Results, variants: list[str], looks: Looks) -> Figure:
    def draw(axes: Axes) -> None:
        for variant in variants:
            for number, history in enumerate(results.histories[variant]):
                checked = history.dropna(subset=["validation_accuracy"])
                label = variant if number == 0 else None
                mean, error = checked["validation_accuracy"], checked["validation_accuracy_se"]
                axes.errorbar(checked["step"], mean, error, ms=4.5, lw=1, label=label, **looks[variant].marked_line)
        axes.set(xlabel="training step", ylabel="accuracy on validation images")

    alt = f"validation accuracy against training step: {', '.join(variants)}"
    caption = "Accuracy of the averaged weights on validation images, ± one standard error."
    return draw_figure("accuracy-steps", alt, caption, 3.4, draw)


def _notes(found: dict[str, list[Classification]], right: PairedRows) -> list[str]:
    images = max((row.images for row in right.rows.values()), default=0)
    seeds = max(len(of_seeds) for of_seeds in found.values())
    over = "test images only" if seeds == 1 else "test images and trainings"
    number = right.comparisons
    together = f" {number} such intervals hold at once (Bonferroni)." if number > 1 else ""
    return [
        "The probabilities of the classes of an image are means over the draws of the dequantisation noise. Confidence "
        "is the probability of the most probable class. The calibration error is the sum over 15 bins of equal width "
        "of (share of images in the bin) times |accuracy - mean confidence| (arXiv 1706.04599); its standard error is "
        "from a bootstrap over images, or between seeds where there are several. By chance it is above 0 under a "
        "calibrated model, too: on average what the last column says, for as many images with the same confidences.",
        f"Errors are over {over}, {count(images)} of them.{together} McNemar's exact test asks whether two models that "
        "are each trained once are equally accurate, by the images that only one of them tells; its p-values are not "
        "corrected for the number of pairs.",
    ]
