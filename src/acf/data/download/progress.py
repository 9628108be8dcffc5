"""Progress of downloads (bytes) and conversions (images): rate and time left on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


@contextmanager
def counting(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of images or rows that have been done.

    Args:
        what: name of the work, for the line.
        total: number of all of them, if known.
    """
    from rich.progress import MofNCompleteColumn, TextColumn

    with _line(MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), transient=True) as progress:
        task = progress.add_task(what, total=total, rate="")

        def advance(count: int) -> None:
            progress.advance(task, count)
            speed = progress.tasks[0].speed
            progress.update(task, rate="" if speed is None else f"{speed:,.0f}/s")

        yield advance


def shown(pieces: Iterable[np.ndarray], what: str, total: int | None = None) -> Iterator[np.ndarray]:
    """Yield arrays of images or rows (n, ...), counting them."""
    with counting(what, total) as advance:
        for piece in pieces:
            yield piece
            advance(len(piece))


@contextmanager
def transferring(url: str, start: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of bytes that have come, after the first `start`."""
    from rich.progress import DownloadColumn, TransferSpeedColumn

    with _line(DownloadColumn(), TransferSpeedColumn()) as progress:
        task = progress.add_task(url.rpartition("/")[2], total=total, completed=start)
        yield lambda count: progress.advance(task, count)


def _line(*columns: ProgressColumn, transient: bool = False) -> Progress:
    """Return a line of progress with name, bar, `columns` and time left, shown on a terminal only.

    Whether there is a terminal is asked of the stream itself: rich also takes a file for one if colours are forced.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=transient,
    )
