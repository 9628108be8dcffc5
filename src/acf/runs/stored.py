"""What lies in the run store, read without changing anything; whatever is damaged is said and takes nothing down."""

import fcntl
import hashlib
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from acf.runs.reached import Reached, read_reached
from acf.runs.recipe import recipe_name
from acf.runs.store import LOCK, OUTPUTS, RECIPE, RUNS, kept_hashes

State = Literal["running", "interrupted", "finished"]
NO_PARTS = f"it has no {RECIPE}: a run of an earlier version"


@dataclass(frozen=True)
class StoredRun:
    """The run store of one recipe.

    Attributes:
        folder: where it is; its name is the recipe.
        state: running (a process holds its lock), finished (outputs are kept), or interrupted.
        parts: what the recipe is made of (`acf.runs.recipe.recipe_parts`); None where that is not known.
        faults: what is damaged or missing, in words.
        reached: how far it had come at its last checkpoint, where that was noted.
        bytes: size on disk.
        changed: time of the last change in it, in seconds since 1970.
    """

    folder: Path
    state: State
    parts: Mapping[str, Any] | None
    faults: tuple[str, ...] = ()
    reached: Reached | None = None
    bytes: int = 0
    changed: float = field(default_factory=time.time)

    @property
    def recipe(self) -> str:
        """The name of the recipe."""
        return self.folder.name

    @property
    def stage(self) -> str | None:
        """The stage that computes it; None where that is not known."""
        return self.parts["stage"] if self.parts else None

    @property
    def identity(self) -> tuple[Any, ...]:
        """Experiment, variant and seed; None for what the stage does not have or is not known."""
        settings = self.parts["settings"] if self.parts else {}
        return tuple(settings.get(key) for key in ("experiment", "variant", "seed"))

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a file that looks like a checkpoint."""
        return any(self.folder.glob("checkpoint*"))

    @property
    def age(self) -> float:
        """Seconds since the last change."""
        return max(0.0, time.time() - self.changed)

    @cached_property
    def kept(self) -> Mapping[str, str]:
        """The SHA-256 of each output that is kept, by its name; empty where there is none or the list is damaged."""
        try:
            return kept_hashes(self.folder) or {}
        except ValueError:
            return {}

    def damaged_outputs(self) -> list[str]:
        """Return the names of kept outputs whose content is not what was kept; reads all of them."""
        return [name for name, digest in self.kept.items() if _hash(self.folder / OUTPUTS / name) != digest]


def stored_runs(root: Path) -> list[StoredRun]:
    """Return all runs in the store of the project in `root`, those that changed last first."""
    folders = [folder for folder in (root / RUNS).glob("*") if folder.is_dir() and not folder.is_symlink()]
    return sorted((read_stored(folder) for folder in folders), key=lambda run: -run.changed)


def read_stored(folder: Path) -> StoredRun:
    """Return what the run store `folder` holds."""
    faults = []
    parts, kept = None, None
    try:
        parts = _parts(folder)
    except ValueError as error:
        faults.append(str(error))
    try:
        kept = kept_hashes(folder)
        faults += [f"{OUTPUTS}/{name} is missing" for name in kept or {} if not (folder / OUTPUTS / name).is_file()]
    except ValueError as error:
        faults.append(str(error))
    state: State = "running" if is_held(folder / LOCK) else "finished" if kept is not None else "interrupted"
    size, changed = _size_and_change(folder)
    return StoredRun(folder, state, parts, tuple(faults), read_reached(folder), size, changed)


def is_held(lock: Path) -> bool:
    """Whether a process holds this lock file. Nothing is written, not even a missing file."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # given back as the file is closed
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _parts(folder: Path) -> Mapping[str, Any]:
    """Return what the recipe of a run store is made of, which its name proves.

    Raises:
        ValueError: that is not known, or damaged; says so.
    """
    path = folder / RECIPE
    try:
        parts = json.loads(path.read_bytes())
        kinds = {"stage": str, "settings": dict, "inputs": dict, "code": dict}
        whole = parts.keys() == kinds.keys() and all(isinstance(parts[key], kind) for key, kind in kinds.items())
        if whole and recipe_name(parts) == folder.name:
            return parts
    except FileNotFoundError:
        raise ValueError(NO_PARTS) from None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        pass
    raise ValueError(f"{RECIPE} is damaged")


def _size_and_change(folder: Path) -> tuple[int, float]:
    size, changed = 0, 0.0
    for path in folder.rglob("*"):
        with suppress(OSError):  # removed since
            stat = path.lstat()
            # `lock` changes whenever a stage looks whether it has been computed.
            if not path.is_dir():
                size += stat.st_size
                changed = max(changed, stat.st_mtime if path.name != LOCK else 0.0)
    if not changed:
        with suppress(OSError):
            changed = folder.stat().st_mtime
    return size, changed


def _hash(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
