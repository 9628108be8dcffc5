"""Freeing space in the run store, as `acf runs prune` does."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from acf.errors import UnwritableError
from acf.runs.files import discard
from acf.runs.store import DONE, LOCK, RECIPE, RUNS, sweep
from acf.runs.stored import read_stored
from acf.stages.project import Project
from acf.stages.run_list import CURRENT, UNCLEAR, UNKNOWN, Entry, list_runs, printable, size

SECONDS_PER_DAY = 86400


@dataclass(frozen=True)
class Choice:
    """Which of the runs that params.yaml and the present code no longer name are removed.

    Attributes:
        older_than: only those that did not change for so many days.
        interrupted: only those that are not finished.
        unknown: also those of which it is not known what they were made of: of earlier versions, or damaged.
    """

    older_than: float = 0.0
    interrupted: bool = False
    unknown: bool = False

    def reason_to_keep(self, entry: Entry) -> str | None:
        """Return why a run is kept; None if it is to be removed."""
        if entry.state == "running":
            return "running"
        if entry.named == CURRENT:
            return "named by params.yaml and the code"
        if entry.named == UNCLEAR:
            return "not known to be out of date (`acf runs` says why)"
        if entry.named == UNKNOWN and not self.unknown:
            return "of an earlier version or damaged, so that nobody knows what they are of (--unknown removes them)"
        if not entry.age >= self.older_than * SECONDS_PER_DAY:  # NaN keeps everything
            return f"changed within the last {self.older_than:g} days"
        if self.interrupted and entry.state == "finished":
            return "finished"
        return None


def prune(choice: Choice, confirm: Callable[[str], bool], root: Path = Path(".")) -> None:
    """Remove the runs of the store that `choice` does not keep; say what is removed, what is kept, and why.

    Leftovers of killed processes and checkpoints of finished runs go too, those in use excepted.

    Args:
        choice: which runs to remove.
        confirm: is given a question, once the list is printed; nothing is removed unless it returns True.
        root: the project's top folder.

    Raises:
        ConfigError: this is no project, or its params.yaml cannot be used.
        UnwritableError: a run cannot be removed; names it.
    """
    Project(root)
    entries = list_runs(root)
    kept = {entry.recipe: reason for entry in entries if (reason := choice.reason_to_keep(entry))}
    removed = [entry for entry in entries if entry.recipe not in kept]
    for entry in removed:
        title = entry.title if entry.title == entry.recipe else f"{entry.title} ({entry.recipe})"
        print(printable(f"to remove: {title}, {entry.state}, {entry.named}, {size(entry.bytes)}"))
    _say_what_stays([entry for entry in entries if entry.recipe in kept], kept)
    if not removed:
        print("no run is to be removed")
    elif confirm(f"remove {_runs(len(removed))}, {size(sum(entry.bytes for entry in removed))}?"):
        freed = sum(entry.bytes for entry in removed if _remove(root / RUNS / entry.recipe))
        before = sum(read_stored(root / RUNS / recipe).bytes for recipe in kept)
        sweep(root)
        freed += before - sum(read_stored(root / RUNS / recipe).bytes for recipe in kept)
        print(f"freed {size(freed)}")


def _say_what_stays(entries: Sequence[Entry], reasons: dict[str, str]) -> None:
    for reason in dict.fromkeys(reasons[entry.recipe] for entry in entries):
        alike = [entry for entry in entries if reasons[entry.recipe] == reason]
        print(f"kept: {_runs(len(alike))}, {size(sum(entry.bytes for entry in alike))}: {reason}")


def _runs(number: int) -> str:
    return f"{number} run{'s' * (number != 1)}"


def _remove(folder: Path) -> bool:
    """Remove a run store unless a process has taken it meanwhile; say whether it was removed.

    What is left if this is killed is an unfinished run that the next call removes.

    Raises:
        UnwritableError: it cannot be removed.
    """
    try:
        with FileLock(folder / LOCK, timeout=0):
            discard(folder / DONE)
            for path in folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name not in (LOCK, RECIPE):
                    path.unlink()
            shutil.rmtree(folder)
    except Timeout:
        print(f"kept: {folder}: another process has begun to work on it")
        return False
    except OSError as error:
        raise UnwritableError(
            f"cannot remove {error.filename or folder}: {error.strerror}; make its folder writable"
        ) from None
    return True
