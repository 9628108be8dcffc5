"""Which rows of an experiment were measured on the same images, and how they differ."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from acf.reporting.paired_differences import Difference, Row, difference, training_spread
from acf.reporting.results import Results


class Pairing:
    """The differences between the rows of an experiment.

    Args:
        results: of the experiment; what is not measured yet may be missing.
    """

    def __init__(self, results: Results) -> None:
        self._rows: dict[str, Row] = {
            name: Row(bits[None], trained=False) for name, bits in results.baseline_images.items() if len(bits) > 1
        }
        for variant, seeds in results.metrics.items():
            if not results.is_trained_for_density(variant):
                continue  # its bits/dim say nothing of how trainings for a density differ
            bits = [results.images.get((variant, metrics.seed)) for metrics in seeds]
            measured = [values for values in bits if values is not None]
            if len(measured) == len(bits) > 0 and len({len(values) for values in measured}) == 1 < len(measured[0]):
                self._rows[variant] = Row(np.stack(measured))

    def gain(self, base: str, row: str) -> Difference | None:
        """Return the bits/dim of `base` minus that of `row`, positive if the row is better.

        Returns:
            None if one of them is not measured, or is not trained for bits/dim, or if they are not measured on the same
            images.
        """
        rows = self._rows
        if base not in rows or row not in rows or rows[base].images != rows[row].images:
            return None
        spread = training_spread(other for other in rows.values() if other.images == rows[row].images)
        return difference(rows[base], rows[row], spread)

    def gains_over_bases(self, bases: Mapping[str, str | None]) -> dict[str, Difference]:
        """Return the gain of each variant over its base, where both are measured on the same images."""
        gains = {variant: self.gain(base, variant) for variant, base in bases.items() if base}
        return {variant: gain for variant, gain in gains.items() if gain is not None}
