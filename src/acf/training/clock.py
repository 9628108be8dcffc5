"""The times that a training run keeps."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds of training, speed of training, and the age of the last checkpoint.

    Validation does not count as training; writing checkpoints does.

    Args:
        seconds: time that earlier processes spent on this run.

    Attributes:
        seconds: seconds of training up to the end of the last step.
        steps_per_second: speed over the last row of the history, 0 before there is one.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.steps_per_second = 0.0
        self._row_steps = 0
        self._row_start = seconds
        self.start()

    def start(self) -> None:
        """Let training begin, or go on, now."""
        self._counted_until = time.perf_counter()
        self._last_checkpoint = self._counted_until

    def count_step(self) -> None:
        """Add the time since the last call to the seconds of training; called at the end of each step."""
        now = time.perf_counter()
        self.seconds += now - self._counted_until
        self._counted_until = now
        self._row_steps += 1

    def leave_out(self) -> None:
        """Leave the time since the last step out of the seconds of training."""
        self._counted_until = time.perf_counter()

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Leave the time that the body takes out of the seconds of training."""
        start = time.perf_counter()
        yield
        self._counted_until += time.perf_counter() - start

    def end_row(self) -> None:
        """Update `steps_per_second` from the steps since the last call."""
        self.steps_per_second = self._row_steps / max(self.seconds - self._row_start, 1e-9)
        self._row_steps = 0
        self._row_start = self.seconds

    def checkpoint_written(self) -> None:
        """Note that a checkpoint was written now, or could not be."""
        self._last_checkpoint = time.perf_counter()

    def seconds_since_checkpoint(self) -> float:
        """Return the age of the last checkpoint; before the first one, the time since `start`."""
        return time.perf_counter() - self._last_checkpoint
