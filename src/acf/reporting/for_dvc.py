"""What DVC compares between versions of the study: few numbers per model, and the curves of all models in one table."""

import json
from pathlib import Path

import pandas as pd

from acf.errors import AcfError, shown
from acf.reporting.convergence import Curve, curve_of
from acf.reporting.result_files import read_table
from acf.reporting.results import Results
from acf.reporting.row_schemas import CurveRow
from acf.reporting.schemas import Metrics

NUMBERS = ("bits_per_dim", "bits_per_dim_se", "certificate", "train_seconds")
"""`certificate` is the proven bound of the worst block; the others have the names that `metrics.json` gives them."""
CURVES = ("step", "seconds", "train_bits_per_dim", "validation_bits_per_dim")
"""Columns of `history.csv` that are drawn."""


def summary(results: Results) -> bytes:
    """Return a JSON file with experiment, variant, seed and `NUMBERS` as nested keys, which DVC joins by dots.

    Flows with classification heads have `accuracy` as well.
    """
    models = {
        variant: {f"seed{m.seed}": dict(zip(NUMBERS, _numbers(m), strict=True)) | _accuracy(m) for m in seeds}
        for variant, seeds in results.metrics.items()
    }
    return (json.dumps({results.experiment: models}, indent=1, allow_nan=False) + "\n").encode()


def curves_table(results: Results) -> bytes:
    """Return a CSV file with a row per variant, seed and row of its history; what was not measured is empty."""
    tables = [
        history.loc[:, list(CURVES)].assign(experiment=results.experiment, variant=variant, seed=metrics.seed)
        for variant, histories in results.histories.items()
        for metrics, history in zip(results.metrics[variant], histories, strict=True)
    ]
    columns = ["experiment", "variant", "seed", *CURVES]
    table = pd.concat(tables).astype({"step": int})[columns] if tables else pd.DataFrame(columns=columns)
    return table.to_csv(index=False, lineterminator="\n").encode()


def read_curves(path: Path, experiment: str) -> dict[str, list[Curve]]:
    """Return the validations of each training, by variant; their standard errors, which the table lacks, are NaN.

    Raises:
        AcfError: the file is missing or is not such a table, or is of another experiment; names file and command.
    """
    command = f"acf report --experiment {experiment}"
    rows: dict[tuple[str, int], list[CurveRow]] = {}
    for row in read_table(path, CurveRow, command):
        if row.experiment != experiment:
            raise AcfError(
                f"{path} is of the experiment {shown(row.experiment)} instead of {experiment}; run: {command}"
            )
        rows.setdefault((row.variant, row.seed), []).append(row)
    curves: dict[str, list[Curve]] = {}
    for (variant, _), each in rows.items():
        history = pd.DataFrame([row.model_dump() for row in each]).assign(validation_se=float("nan"))
        if curve := curve_of(history):
            curves.setdefault(variant, []).append(curve)
    return curves


def _numbers(metrics: Metrics) -> tuple[float, ...]:
    return metrics.bits_per_dim, metrics.bits_per_dim_se, metrics.certificate.worst, metrics.train_seconds


def _accuracy(metrics: Metrics) -> dict[str, float]:
    return {} if metrics.classification is None else {"accuracy": metrics.classification.accuracy}
