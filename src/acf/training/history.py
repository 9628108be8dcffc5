"""The table of a training run, with a row every few steps."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from torch import Tensor

COLUMNS = (
    "step",
    "seconds",
    "images",
    "train_bits_per_dim",
    "gradient_norm",
    "learning_rate",
    "validation_bits_per_dim",
    "validation_se",
    "train_cross_entropy",
    "train_accuracy",
    "validation_cross_entropy",
    "validation_cross_entropy_se",
    "validation_accuracy",
    "validation_accuracy_se",
)
"""Those of a task that does not measure them are empty, as those of a validation where none took place."""
ERRORS = {"bits_per_dim": "validation_se"}
"""Columns of standard errors whose names do not follow from what was measured."""

Watch = Callable[[Sequence[Mapping[str, Any]]], None]
"""Is handed all complete rows of a history, again and again, while there are more and more of them."""


def nobody(rows: Sequence[Mapping[str, Any]]) -> None:
    """Watch nothing."""


def error_column(name: str) -> str:
    """Return the column of the standard error of what a validation measures as `name`."""
    return ERRORS.get(name, f"validation_{name}_se")


@dataclass
class Sums:
    """Sums over the steps since the last row; of scalars on the device, where that is what was added.

    Attributes:
        steps: number of steps.
        gradient_norm: sum of the steps' gradient norms.
        measured: sums of what the task measures in training, by its names.
    """

    steps: int = 0
    gradient_norm: float | Tensor = 0.0
    measured: dict[str, float | Tensor] = field(default_factory=dict)

    def read(self) -> "Sums":
        """Return the sums as plain numbers, for which the host waits for the device."""
        return Sums(self.steps, float(self.gradient_norm), {name: float(sum_) for name, sum_ in self.measured.items()})


class History:
    """The rows of `history.csv`, and the sums from which the next one is made.

    Attributes:
        rows: a dictionary per row, with `COLUMNS` as keys; what was not measured is "".
        sums: over the steps since the last row.
    """

    def __init__(self, rows: list[dict[str, Any]] | None = None, sums: Sums | None = None) -> None:
        self.rows = rows or []
        self.sums = sums or Sums()

    def observe(self, measured: Mapping[str, float | Tensor], gradient_norm: float | Tensor) -> None:
        """Add what was measured in one step, and its gradient norm; of scalars on a device nothing is read."""
        self.sums.steps += 1
        for name, value in measured.items():
            self.sums.measured[name] = self.sums.measured.get(name, 0.0) + value
        self.sums.gradient_norm = self.sums.gradient_norm + gradient_norm

    def end_row(self, step: int, seconds: float, images: int, learning_rate: float) -> None:
        """Append a row with the means over the steps since the last one.

        Args:
            step: number of steps done.
            seconds: seconds of training so far.
            images: number of training images seen so far, repetitions included.
            learning_rate: of the last step.
        """
        sums = self.sums.read()
        steps = max(sums.steps, 1)
        row = dict.fromkeys(COLUMNS, "") | {
            "step": step,
            "seconds": round(seconds, 3),
            "images": images,
            **{f"train_{name}": value / steps for name, value in sums.measured.items()},
            "gradient_norm": sums.gradient_norm / steps,
            "learning_rate": learning_rate,
        }
        self.rows.append(row)
        self.sums = Sums()

    def add_validation(self, measured: Mapping[str, tuple[float, float]]) -> None:
        """Write what was measured in a validation into the last row: by name the mean and its standard error."""
        for name, (mean, error) in measured.items():
            self.rows[-1][f"validation_{name}"] = mean
            self.rows[-1][error_column(name)] = error

    def is_validated(self) -> bool:
        """Return whether the last row has a validation."""
        return any(cell != "" for column, cell in self.rows[-1].items() if column.startswith("validation_"))

    def last_bits_per_dim(self) -> float | None:
        """Return bits/dim of the last validation, of the last row's training where there was none.

        Returns:
            None before that, and where the task does not measure it.
        """
        if not self.rows:
            return None
        validated = [row["validation_bits_per_dim"] for row in self.rows if row["validation_bits_per_dim"] != ""]
        last = validated[-1] if validated else self.rows[-1]["train_bits_per_dim"]
        return None if last == "" else float(last)

    def as_csv(self) -> str:
        """Return the table as text with a header line."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def state_dict(self) -> dict[str, Any]:
        """Return rows and sums as plain values, for a checkpoint."""
        return {"rows": self.rows, "sums": asdict(self.sums.read())}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Self:
        """Return the history whose `state_dict` is `state`."""
        return cls(state["rows"], Sums(**state["sums"]))
