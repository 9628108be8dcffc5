"""The forms of what the stage `sample` draws of a flow on the rows of a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any, Self

from pydantic import Field, PositiveInt, model_validator

from acf.reporting.schemas import Digest, Name, NotNegative, Number, OfModel, Stored


class Moments(Stored):
    """Mean and standard deviation of a column over some rows, in the units of the table."""

    mean: Number
    std: NotNegative | None


class ColumnOfSamples(Stored):
    """One column of samples and of test rows."""

    name: Name
    of_samples: Moments
    of_test: Moments


class RowReconstructions(Stored):
    """Per test row x, in standardised units: |x - f^-1(f(x))|, and the largest proven error of a block's inverse."""

    largest: list[NotNegative] = Field(min_length=1)
    block_bound: list[NotNegative]

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        if len(self.largest) != len(self.block_bound):
            raise ValueError("the lists are of different lengths")
        return self


class RowsFile(OfModel):
    """`samples/<experiment>/<variant>/seed<k>/rows.json` (docs/architecture.md)."""

    settings: dict[str, Any]
    temperature: NotNegative
    samples: PositiveInt
    test_rows: PositiveInt
    columns: list[ColumnOfSamples] = Field(min_length=1)
    reconstructions: RowReconstructions
    rows_sha256: Digest
    """Of the samples in `rows.csv`."""
    seconds: NotNegative


def rows_csv(names: Sequence[str], rows: Iterable[Sequence[float]]) -> bytes:
    """Return a table with a line of headings, numbers with all their digits."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([repr(value) for value in row] for row in rows)
    return text.getvalue().encode()
