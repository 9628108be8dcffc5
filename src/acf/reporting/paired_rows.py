"""What sections say of numbers that an analysis has for every image, or pair of images, and every seed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from acf.errors import AcfError
from acf.reporting.findings_file import PairFinding
from acf.reporting.page_parts import Analysed, AnalysedModel, Form
from acf.reporting.paired_differences import PERCENT, Difference, Row, TrainingSpread, difference, training_spread
from acf.reporting.wording import with_error


@dataclass(frozen=True)
class PairedRows:
    """One quantity of all variants of an experiment, on the same images.

    Attributes:
        rows: by variant; a variant without models has none.
        bases: the base of each variant that has one, and rows of both.
        comparisons: number of differences to bases that are said to hold together.
    """

    rows: Mapping[str, Row]
    bases: Mapping[str, str]
    comparisons: int

    @cached_property
    def _spread(self) -> TrainingSpread:
        return training_spread(self.rows.values())

    def mean(self, variant: str) -> Difference:
        """Return the mean of a variant over images and seeds, as a difference to 0."""
        row = self.rows[variant]
        return difference(row, Row(np.zeros((1, row.images)), trained=False), self._spread)

    def between(self, variant: str, other: str) -> Difference:
        """Return the mean of `variant` minus that of `other`, paired over images."""
        return difference(self.rows[variant], self.rows[other], self._spread)

    def over_bases(self) -> dict[str, Difference]:
        """Return for each variant with a base its mean minus that of its base."""
        return {variant: self.between(variant, base) for variant, base in self.bases.items()}

    def findings(self, quantity: str, items: str, at: str = "") -> list[PairFinding]:
        """Return each variant against its base, for other documents; of the quantity, less is better.

        Args:
            quantity: its name.
            items: what is paired, such as "297 test images".
            at: where on its scale it was measured.
        """
        return [self._finding(quantity, at, items, variant, base) for variant, base in self.bases.items()]

    def _finding(self, quantity: str, at: str, items: str, variant: str, base: str) -> PairFinding:
        own, other, gain = self.mean(variant), self.mean(base), self.between(base, variant)
        low, high = gain.interval(self.comparisons)
        return PairFinding(
            quantity=quantity,
            at=at,
            variant=variant,
            base=base,
            value=own.mean,
            value_se=own.se,
            of_base=other.mean,
            of_base_se=other.se,
            gain=gain.mean,
            gain_se=gain.se,
            low=low,
            high=high,
            over=items,
            seeds=len(self.rows[variant].bits),
            base_seeds=len(self.rows[base].bits),
        )


def paired_rows(
    analysed: Analysed[Form],
    bases: Mapping[str, str | None],
    values: Callable[[Form], np.ndarray],
    quantities: int = 1,
) -> PairedRows:
    """Return the rows of a quantity.

    Args:
        analysed: all models.
        bases: the base of each variant, None where it has none.
        values: the quantity of one model, (N,).
        quantities: how many such quantities are compared together.
    """
    rows = {
        variant: Row(np.stack([np.asarray(values(model.found), dtype=float) for model in models]))
        for variant, models in analysed.items()
        if models
    }
    known = {variant: base for variant, base in bases.items() if variant in rows and base in rows and base is not None}
    return PairedRows(rows, known, quantities * max(len(known), 1))


def require_alike(name: str, analysed: Analysed[Form], measure: Callable[[Form], Hashable]) -> None:
    """Check that all models were analysed alike, so that they can be compared.

    Args:
        name: of the analysis.
        analysed: all models.
        measure: what has to be the same of all.

    Raises:
        AcfError: they were not; names the first model that differs.
    """
    models: list[AnalysedModel[Form]] = [model for group in analysed.values() for model in group]
    for model in models[1:]:
        if measure(model.found) != measure(models[0].found):
            raise AcfError(
                f"the analysis {name} of {model.run.folder.as_posix()} is of other settings than that of "
                f"{models[0].run.folder.as_posix()}; run: acf {name} {model.run.options}"
            )


def on_errors(analysed: Analysed[Form], items: str, comparisons: int) -> str:
    """Return over what errors are and when models are said to differ.

    Args:
        analysed: all models.
        items: what is paired, such as "297 test images".
        comparisons: number of differences that are said to hold together.
    """
    numbers = sorted({len(models) for models in analysed.values() if models})
    if numbers[-1] == 1:
        over = f"Errors are over {items}, of one training each: they do not say how another training would turn out."
    else:
        seeds = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
        over = f"Errors are over {items} and over the trainings of {seeds} seeds."
    together = f"; {comparisons} such intervals hold at once" if comparisons > 1 else ""
    return f"{over} Models differ where the interval of {PERCENT} of their difference leaves out 0{together}."


def against_base(variant: str, rows: PairedRows, subject: str, words: tuple[str, str, str]) -> str:
    """Return whether a variant differs from its base, beyond an interval that holds together with the others.

    Args:
        variant: its name.
        rows: of all variants.
        subject: what is compared, such as "excess".
        words: what a smaller mean is, what a larger one, and the unit: ("lower", "higher", " bits/dim").
    """
    base = rows.bases[variant]
    found = rows.between(variant, base)
    low, high = found.interval(rows.comparisons)
    smaller, larger, unit = words
    amount = f"{with_error(abs(found.mean), found.se)}{unit} {smaller if found.mean < 0 else larger}"
    if low <= 0 <= high:
        return f"The {subject} of {variant} does not differ from that of {base} beyond the error ({amount})."
    return f"The {subject} of {variant} is {amount} than that of {base}."


def mean_text(found: Difference) -> str:
    """Return a mean with its standard error."""
    return with_error(found.mean, found.se)
