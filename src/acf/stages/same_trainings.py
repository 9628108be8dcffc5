"""Whether the files that a report writes for DVC are of the trainings that its comparison table is of."""

from pathlib import Path
from statistics import fmean

import pandas as pd
from pydantic import RootModel

from acf.errors import AcfError
from acf.reporting.comparison import bits_of_seeds
from acf.reporting.result_files import read_result, read_table
from acf.reporting.row_schemas import CurveRow
from acf.reporting.schemas import Number, Stored


class SummaryEntry(Stored):
    """What `summaries/<experiment>.json` says of one model, of which only this is read."""

    bits_per_dim: Number


class Summary(RootModel[dict[str, dict[str, dict[str, SummaryEntry]]]]):
    """The whole file: by experiment, variant and `seed<seed>`."""


def require_same_trainings(table: pd.DataFrame, summary: Path, curves: Path, experiment: str) -> None:
    """Check that both files are of the trainings that the comparison table is of; a missing file is not checked.

    Two trainings of the same settings never take the same seconds, so that a repeated training is noticed as well.

    Args:
        table: of the report (`acf.reporting.comparison`).
        summary: what `acf.reporting.for_dvc.summary` has written.
        curves: what `acf.reporting.for_dvc.curves_table` has written.
        experiment: the one that all three are of.

    Raises:
        AcfError: a file is of other trainings than the table, or is damaged; names it and what writes it again.
    """
    command = f"acf report --experiment {experiment}"
    flows = table[table["kind"] == "flow"].set_index("row")
    if flows.empty:
        return
    checks = [
        (summary, _bits_of_summary, flows["bits_per_dim_of_seeds"]),
        (curves, _seconds_of_curves, flows["train_seconds"]),
    ]
    for path, read, expected in checks:
        if path.exists() and read(path, experiment, command) != expected.to_dict():
            raise AcfError(f"{path} is of other trainings than the report of {experiment}; run: {command}")


def _bits_of_summary(path: Path, experiment: str, command: str) -> dict[str, str]:
    """Return the bits/dim of each variant's seeds as the comparison table has them."""
    models = read_result(path, Summary, {}, command).root.get(experiment, {})
    return {
        variant: bits_of_seeds((seed.removeprefix("seed"), one.bits_per_dim) for seed, one in seeds.items())
        for variant, seeds in models.items()
        if seeds
    }


def _seconds_of_curves(path: Path, experiment: str, command: str) -> dict[str, float]:
    """Return the mean seconds of each variant's trainings as the comparison table has them."""
    seconds: dict[str, dict[int, float]] = {}
    for row in read_table(path, CurveRow, command):
        seconds.setdefault(row.variant, {})[row.seed] = row.seconds
    return {variant: fmean(each.values()) for variant, each in seconds.items()}
