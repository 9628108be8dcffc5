"""Test bits/dim of variants with attention against those without that were trained for as many seconds.

Other than the values that `validation_gains.py` reads off validations, those of both are of whole trainings, each with
a learning rate that falls to its own end. An experiment needs a variant without attention of more steps for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from acf.reporting.findings_file import PairFinding
from acf.reporting.partner_gains import partner_gains
from acf.reporting.results import Results
from acf.reporting.wording import duration

MATCHED = "bits_per_dim, equal seconds"
"""Name of the quantity."""
TOLERANCE = 0.1
"""Seconds that differ by no larger share count as equal: as much as those of one training do from run to run."""


def matched_seconds(results: Results, plain: Mapping[str, Sequence[str]]) -> list[PairFinding]:
    """Return each variant with attention against the one whose seconds of training are nearest to its own.

    Args:
        results: of the experiment; what is not measured yet may be missing.
        plain: for each variant with attention those without that it is compared with.

    Returns:
        One for each variant that has such a partner within `TOLERANCE`, trained on the same machine and measured on the
        same images; none where the seconds of the experiment cannot be compared.
    """
    if results.incomparable_seconds:
        return []
    seconds = {variant: fmean(one.train_seconds for one in runs) for variant, runs in results.metrics.items() if runs}
    partners = {}
    for variant, others in plain.items():
        near = [
            other
            for other in others
            if {variant, other} <= seconds.keys()
            and seconds[variant] > 0
            and abs(seconds[other] - seconds[variant]) <= TOLERANCE * seconds[variant]
            and _machines(results, variant) == _machines(results, other)
        ]
        if near:
            partners[variant] = min(near, key=lambda other: abs(seconds[other] - seconds[variant]))
    return partner_gains(
        results,
        MATCHED,
        partners,
        lambda variant, other: f"{duration(seconds[variant])} and {duration(seconds[other])}",
    )


def _machines(results: Results, variant: str) -> set[str | None]:
    """Return what the trainings of a variant ran on; seconds of different machines are not comparable."""
    return {one.train_device for one in results.metrics[variant]}
