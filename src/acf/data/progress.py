"""Progress of downloads (bytes) and conversions (images): rate and time left on a terminal, nothing elsewhere."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def counting(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with the number of images that have been done.

    Args:
        what: name of the work, for the line.
        total: number of all images, if known.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    description = TextColumn("{task.description}")
    with Progress(description, *columns, console=console, disable=not sys.stderr.isatty(), transient=True) as progress:
        task = progress.add_task(what, total=total, rate="")

        def advance(count: int) -> None:
            progress.advance(task, count)
            speed = progress.tasks[0].speed
            progress.update(task, rate="" if speed is None else f"{speed:,.0f} images/s")

        yield advance


def shown(pieces: Iterable[np.ndarray], what: str, total: int | None = None) -> Iterator[np.ndarray]:
    """Yield arrays of images (n, ...), counting them."""
    with counting(what, total) as advance:
        for piece in pieces:
            yield piece
            advance(len(piece))


@contextmanager
def transferring(url: str, start: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show bytes, rate and time left on a terminal, nothing elsewhere; yields a function to call."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(url.rpartition("/")[2], total=total, completed=start)
        yield lambda count: progress.advance(task, count)
