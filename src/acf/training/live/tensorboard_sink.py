"""Curves for TensorBoard."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acf.training.live.sink import points


class TensorBoardSink:
    """Writes an event file; TensorBoard's relative time is the time of training, interruptions left out."""

    package = "tensorboard"

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))
        self._start: float | None = None

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row as one event per curve."""
        if self._start is None:
            self._start = time.time() - row["seconds"]
        for label, value in points(row).items():
            self._writer.add_scalar(label, value, row["step"], walltime=self._start + row["seconds"])

    def flush(self) -> None:
        """Have the events written to the file."""
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
