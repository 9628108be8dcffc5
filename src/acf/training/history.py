"""The record of a training run, one row every few steps."""

import csv
import io
from typing import Any

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


class History:
    """Rows of `history.csv`; training values are means over the steps since the row before."""

    def __init__(self, rows: list[dict[str, Any]] | None = None, sums: list[float] | None = None) -> None:
        self.rows = rows or []
        self.sums = sums or [0.0, 0.0, 0.0]

    def observe(self, bits_per_dim: float, gradient_norm: float) -> None:
        """Take note of one step."""
        for index, value in enumerate((1.0, bits_per_dim, gradient_norm)):
            self.sums[index] += value

    def row(self, step: int, seconds: float, images: int, learning_rate: float) -> dict[str, Any]:
        """End the row of all steps observed since the last one, and return it."""
        count = max(self.sums[0], 1.0)
        row = dict.fromkeys(COLUMNS, "") | {
            "step": step,
            "seconds": round(seconds, 3),
            "images": images,
            "train_bits_per_dim": self.sums[1] / count,
            "gradient_norm": self.sums[2] / count,
            "learning_rate": learning_rate,
        }
        self.rows.append(row)
        self.sums = [0.0, 0.0, 0.0]
        return row

    def as_csv(self) -> str:
        """Return the table as text with a header line."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()
