"""The parts of a report on training and certificates."""

from __future__ import annotations

from collections.abc import Sequence

from acf.reporting.figures import SPAN, bounds, curves
from acf.reporting.page_parts import Section, Table
from acf.reporting.results import Results
from acf.reporting.schemas import Metrics
from acf.reporting.style import Looks
from acf.reporting.wording import bound, count


def training(results: Results, looks: Looks) -> Section:
    """Return bits/dim in training by step and by seconds."""
    if not results.runs:
        return Section("curves", "Training", ["No flow is evaluated yet."])
    if not any(results.metrics[variant] and results.is_trained_for_density(variant) for variant in results.metrics):
        return Section("curves", "Training", ["No flow of this experiment is trained for bits/dim."])
    several = any(len(histories) > 1 for histories in results.histories.values())
    bars = "means over the seeds, with bars from the lowest to the highest" if several else "± one standard error"
    band = ", the mean over the seeds with a band from the lowest to the highest" if several else ""
    return Section(
        "curves",
        "Training",
        figures=[
            curves(results, looks, "step", "training step", "By training step."),
            curves(results, looks, "seconds", "seconds of training", "By seconds of training, interruptions left out."),
        ],
        notes=[
            f"Lines: training bits/dim of the batches, smoothed over {SPAN} rows of history.csv{band}. Markers: "
            f"bits/dim of the averaged weights on validation {results.unit}, held out of the training set, {bars}. "
            f"The first steps may lie above the frame, and so may the test bits/dim of the {results.reference} "
            "baseline, dashed where it does not.",
            *results.notes_on_seconds,
        ],
    )


def certificates(results: Results, looks: Looks) -> Section:
    """Return the proven bounds of all blocks."""
    sentence = (
        "Each block of the flow is made of a map g; it is invertible if the Lipschitz constant of g is below 1. Shown "
        "are proven upper bounds."
    )
    if not results.runs:
        return Section("certificates", "Certificates", [sentence, "No flow is evaluated yet."])
    rows = [_certificate(variant, runs) for variant, runs in results.metrics.items() if runs]
    table = Table(
        ["model", "worst bound", "worst block", "blocks", "smallest bound"], rows, "Proven bounds, over all seeds."
    )
    return Section("certificates", "Certificates", [sentence], [table], [bounds(results, looks)])


def _certificate(variant: str, runs: Sequence[Metrics]) -> list[str]:
    worst = max((metrics.certificate for metrics in runs), key=lambda certificate: certificate.worst)
    smallest = min(block.upper for metrics in runs for block in metrics.certificate.blocks)
    return [variant, bound(worst.worst), worst.worst_block, count(len(worst.blocks)), bound(smallest)]
