"""What DVC compares between versions of the study: few numbers per model, and the curves of all models in one table."""

import json

import pandas as pd

from acf.reporting.results import Results
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


def _numbers(metrics: Metrics) -> tuple[float, ...]:
    return metrics.bits_per_dim, metrics.bits_per_dim_se, metrics.certificate.worst, metrics.train_seconds


def _accuracy(metrics: Metrics) -> dict[str, float]:
    return {} if metrics.classification is None else {"accuracy": metrics.classification.accuracy}
