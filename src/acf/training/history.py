"""The table of a training run, with a row every few steps."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
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
)

Watch = Callable[[Sequence[Mapping[str, Any]]], None]
"""Is handed all complete rows of a history, again and again, while there are more and more of them."""


def nobody(rows: Sequence[Mapping[str, Any]]) -> None:
    """Watch nothing."""


@dataclass
class Sums:
    """Sums over the steps since the last row; of scalars on the device, where that is what was added.

    Attributes:
        steps: number of steps.
        bits_per_dim: sum of the steps' training bits/dim.
        gradient_norm: sum of the steps' gradient norms.
    """

    steps: int = 0
    bits_per_dim: float | Tensor = 0.0
    gradient_norm: float | Tensor = 0.0

    def read(self) -> "Sums":
        """Return the sums as plain numbers, for which the host waits for the device."""
        return Sums(self.steps, float(self.bits_per_dim), float(self.gradient_norm))


class History:
    """The rows of `history.csv`, and the sums from which the next one is made.

    Attributes:
        rows: a dictionary per row, with `COLUMNS` as keys; what was not measured is "".
        sums: over the steps since the last row.
    """

    def __init__(self, rows: list[dict[str, Any]] | None = None, sums: Sums | None = None) -> None:
        self.rows = rows or []
        self.sums = sums or Sums()

    def observe(self, bits_per_dim: float | Tensor, gradient_norm: float | Tensor) -> None:
        """Add the training bits/dim and the gradient norm of one step; of scalars on a device nothing is read."""
        self.sums.steps += 1
        self.sums.bits_per_dim = self.sums.bits_per_dim + bits_per_dim
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
            "train_bits_per_dim": sums.bits_per_dim / steps,
            "gradient_norm": sums.gradient_norm / steps,
            "learning_rate": learning_rate,
        }
        self.rows.append(row)
        self.sums = Sums()

    def add_validation(self, bits_per_dim: float, standard_error: float) -> None:
        """Write validation bits/dim and its standard error into the last row."""
        self.rows[-1]["validation_bits_per_dim"] = bits_per_dim
        self.rows[-1]["validation_se"] = standard_error

    def last_bits_per_dim(self) -> float | None:
        """Return bits/dim of the last validation, of the last row's training where there was none; None before that."""
        if not self.rows:
            return None
        validated = [row["validation_bits_per_dim"] for row in self.rows if row["validation_bits_per_dim"] != ""]
        return float(validated[-1] if validated else self.rows[-1]["train_bits_per_dim"])

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
