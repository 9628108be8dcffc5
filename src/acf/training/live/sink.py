"""What shows the rows of a training's history elsewhere than in `history.csv`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

LABELS = {
    "seconds": "train/seconds",
    "images": "train/images",
    "train_bits_per_dim": "train/bits_per_dim",
    "gradient_norm": "train/gradient_norm",
    "learning_rate": "train/learning_rate",
    "validation_bits_per_dim": "validation/bits_per_dim",
    "validation_se": "validation/bits_per_dim_se",
    "train_cross_entropy": "train/cross_entropy",
    "train_accuracy": "train/accuracy",
    "validation_cross_entropy": "validation/cross_entropy",
    "validation_cross_entropy_se": "validation/cross_entropy_se",
    "validation_accuracy": "validation/accuracy",
    "validation_accuracy_se": "validation/accuracy_se",
}
"""What a sink calls each column of the history but `step`, which is every curve's horizontal axis."""


class Sink(Protocol):
    """A place for the curves of one training, which it writes anew from the first row on.

    Any error that a method raises switches the sink off; none ends a training.
    """

    package: ClassVar[str]
    """The module that has to be installed."""

    def __init__(self, folder: Path) -> None:
        """Begin curves without a point in `folder`, which is empty."""

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row of the history."""

    def flush(self) -> None:
        """Have all rows so far seen by whoever looks."""

    def close(self) -> None:
        """End the curves."""


def points(row: Mapping[str, Any]) -> dict[str, float]:
    """Return what was measured in a row of the history, by label."""
    return {label: float(row[column]) for column, label in LABELS.items() if row[column] != ""}
