"""Files by whose age an engine that compares ages, as Snakemake does, sees what has to be made anew."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from acf.runs.files import write_atomically
from acf.runs.store import open_run
from acf.stages.current import Current, Task
from acf.stages.project import Project
from acf.stages.recorded import recorded_recipe

STAMPS = Path(".acf/stamps")
OLD = 10**18
"""Nanoseconds: an age that every output is younger than (2001)."""


def stamp_path(task: Task) -> Path:
    """Return the place of the stamp of a task, below the project's top folder.

    Every stamp has a folder of its own: Snakemake lists a folder once, and does not see what is written there later.
    """
    return STAMPS.joinpath(task.stage, *task.names, "stamp.txt")


class Stamps:
    """The stamps of a project: older than the outputs of a task if these are current, and new if they are not.

    Args:
        root: the project's top folder.
    """

    def __init__(self, root: Path = Path(".")) -> None:
        self.root = root
        self._current = Current(Project(root))
        self._written: set[Task] = set()

    def write(self, task: Task) -> bool:
        """Write the stamp of a task, once however often it is asked for; return whether its outputs are current.

        Raises:
            UnwritableError: it cannot be written.
        """
        current = self._current.is_current(task)
        if task not in self._written:
            self._written.add(task)
            _write(self.root / stamp_path(task), current)
        return current


def _write(path: Path, current: bool) -> None:
    if not current:
        # Never the same content twice: Snakemake also compares contents with those that it has seen.
        write_atomically(path, f"to be made since {time.time_ns()}\n".encode())
    elif not path.is_file() or path.stat().st_mtime_ns != OLD:
        write_atomically(path, b"the outputs are current\n")
        os.utime(path, ns=(OLD, OLD))


def keep_in_place(paths: Sequence[Path], root: Path = Path(".")) -> None:
    """Keep outputs that lie in place in the run store of their recipe, before an engine removes them.

    Outputs that say no recipe, or are damaged, are not kept.

    Raises:
        UnwritableError: they cannot be kept.
    """
    if any(path.suffix == ".html" for path in paths) or not (made_of := recorded_recipe(paths, whole=True)):
        return
    with open_run(made_of, root).locked() as store:
        if not store.finished:
            store.keep(paths)
