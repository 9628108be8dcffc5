"""The progress bar of a training run, and the lines above it."""

import sys
from contextlib import suppress
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Be silent from now on; rich would end the program."""
        self.quiet = True


class TrainingProgress:
    """A context that shows a bar with a text and the time left, on a terminal only.

    Nothing is shown where standard output has gone (a closed terminal, a full disk, the end of a pipe) or cannot be
    written in; training does not end for that.

    Args:
        title: name of the run.
        start: number of steps done before.
        steps: number of steps in all.
        shown: whether anything is printed; of several processes one prints.
    """

    def __init__(self, title: str, start: int, steps: int, shown: bool = True) -> None:
        self._console = _Console(file=sys.stdout, highlight=False, soft_wrap=True, quiet=not shown)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not (shown and self._console.is_terminal),
            transient=True,
        )
        self._task = self._bar.add_task(title, completed=start, total=steps, state="")

    def __enter__(self) -> Self:
        with suppress(OSError):
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._bar.stop()

    def update(self, step: int, state: str) -> None:
        """Move the bar to `step` steps done, with a text beside it."""
        with suppress(OSError):
            self._bar.update(self._task, completed=step, state=state)

    def print_line(self, line: str) -> None:
        """Print a line that stays above the bar, or without one; characters that cannot be encoded are escaped."""
        encoding = self._console.encoding
        with suppress(OSError):
            self._console.print(line.encode(encoding, "backslashreplace").decode(encoding), markup=False)
            self._console.file.flush()
