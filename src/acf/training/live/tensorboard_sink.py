"""Curves for TensorBoard."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acf.training.live.sink import points


class TensorBoardSink:
    """Writes an event file; TensorBoard's relative time is the time of training, interruptions left out.

    The records are TensorBoard's own. Its `EventFileWriter` would write them from a thread, which prints a traceback
    where the disk is full.
    """

    package = "tensorboard"

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = Event, Summary
        self._start: float | None = None
        now = time.time()
        self._file = (folder / f"events.out.tfevents.{now:.0f}.{os.getpid()}").open("wb")
        self._records = RecordWriter(self._file)
        self._records.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row as one event."""
        if self._start is None:
            self._start = time.time() - row["seconds"]
        values = [self._summary.Value(tag=label, simple_value=value) for label, value in points(row).items()]
        event = self._event(
            wall_time=self._start + row["seconds"], step=row["step"], summary=self._summary(value=values)
        )
        self._records.write(event.SerializeToString())

    def flush(self) -> None:
        """Have the events written to the file."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
