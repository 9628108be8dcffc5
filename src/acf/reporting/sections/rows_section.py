"""The report's sections on flows of vectors: densities in nats per row, and samples beside the rows of the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from acf.data.prepared.manifest import Column
from acf.reporting.page_parts import Figure, Section, Table
from acf.reporting.rows_file import ColumnOfSamples, RowsFile
from acf.reporting.sections.sample_section import SampledModel
from acf.reporting.wording import ABSENT, count, decimal, scientific, with_error

Models = Mapping[str, Sequence[SampledModel[RowsFile]]]


def density_section(table: pd.DataFrame, columns: Sequence[Column]) -> Section:
    """Return the mean log-density of test rows in nats, of standardised values and in the units of the table.

    With D columns it is -D ln 2 bits/dim, and in the units of the table less by the sum of ln std over the columns.

    Args:
        table: the comparison table.
        columns: of the data set.
    """
    nats = len(columns) * math.log(2)
    logs = sum(math.log(column.std) for column in columns)
    rows = [
        [
            row["row"],
            with_error(-nats * row["bits_per_dim"], nats * row["bits_per_dim_se"]),
            with_error(-nats * row["bits_per_dim"] - logs, nats * row["bits_per_dim_se"]),
        ]
        for _, row in table.iterrows()
    ]
    best = table.iloc[int(table["bits_per_dim"].argmin())]
    value = with_error(-nats * best["bits_per_dim"], nats * best["bits_per_dim_se"])
    used = [[column.name, f"{column.mean:.6g}", f"{column.std:.6g}"] for column in columns]
    return Section(
        "density",
        "Density of test rows",
        [f"{best['row']} gives test rows the highest mean log-density, {value} nats per row."],
        [
            Table(["model", "nats per row", "in the units of the table"], rows),
            Table(["column", "mean", "standard deviation"], used, "How columns were standardised.", folded=True),
        ],
        notes=[
            "The mean of ln p(x) over test rows, higher is better, ± one standard error. Each column is standardised "
            "by mean and standard deviation of the training rows; bits/dim is −log₂ p(x) divided by the number of "
            f"columns, {len(columns)}, for standardised rows x, without any term for grey levels, and may be negative. "
            "In the units of the table ln p(x) is less by the sum of the logarithms of the standard deviations, "
            f"{decimal(logs)}.",
            "A density of real numbers has no upper limit: on columns with few different values it measures how narrow "
            "a model makes its peaks there.",
        ],
    )


def row_sections(models: Models) -> list[Section]:
    """Return the sections on samples and reconstructions; none if there are no models."""
    present = {variant: found for variant, found in models.items() if found}
    return [_samples(present), _reconstructions(present)] if present else []


def _samples(models: Models) -> Section:
    first = next(iter(models.values()))[0].found
    rows = [_cells("test rows", first.columns, of_test=True)]
    rows += [_cells(variant, found[0].found.columns) for variant, found in models.items()]
    heads = ["mean ± standard deviation of", *(column.name for column in first.columns)]
    figures = [
        Figure(f"pairs-{variant}", f"pairs of columns of {variant}", variant, model.pictures["pairs"])
        for variant, found in models.items()
        for model in found[:1]
        if "pairs" in model.pictures
    ]
    return Section(
        "samples",
        "Samples",
        tables=[Table(heads, rows)],
        figures=figures,
        notes=[
            f"{count(first.samples)} samples at temperature {first.temperature:g} and {count(first.test_rows)} test "
            "rows, in the units of the table, of the first training seed; `rows.csv` beside the picture has the "
            "samples."
        ],
    )


def _cells(name: str, columns: Sequence[ColumnOfSamples], of_test: bool = False) -> list[str]:
    moments = [column.of_test if of_test else column.of_samples for column in columns]
    return [name, *(f"{m.mean:.4g} ± {ABSENT if m.std is None else format(m.std, '.3g')}" for m in moments)]


def _reconstructions(models: Models) -> Section:
    errors = {variant: [model.found.reconstructions for model in found] for variant, found in models.items()}
    largest = {variant: max(max(e.largest) for e in found) for variant, found in errors.items()}
    proven = {variant: max(max(e.block_bound) for e in found) for variant, found in errors.items()}
    worst = max(largest, key=lambda variant: largest[variant])
    rows = [[variant, scientific(largest[variant]), scientific(proven[variant])] for variant in models]
    return Section(
        "reconstructions",
        "Reconstructions",
        [f"The largest |x − f⁻¹(f(x))| of any flow is {scientific(largest[worst])} ({worst}), in standard deviations."],
        [Table(["model", "largest error", "proven error of a block"], rows)],
        notes=[
            "Of standardised test rows, over all training seeds. The proven error bounds the Euclidean distance of a "
            "block's solution from the exact one, for the input that the block received."
        ],
    )
