"""The run store: a folder per recipe that outlives preemption and keeps finished outputs.

Both engines remove a stage's outputs before it runs, so checkpoints and the only copy of a long computation's
result cannot live among them.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from acf.errors import UnwritableError
from acf.runs.files import discard, write_atomically, write_if_changed, writing

RUNS = Path(".acf/runs")
OUTPUTS, DONE, LOCK, RECIPE = "outputs", "done.json", "lock", "recipe.json"
"""What a run store keeps: finished outputs, their hashes, the lock of who computes, what the recipe was made of."""
TAKEN = frozenset({OUTPUTS, DONE, LOCK, RECIPE})
HALF_WRITTEN = ".*.tmp"
"""Names of temporary files: those of `acf.runs.files`, and those with the process's number of earlier versions."""


def open_run(recipe: str, root: Path = Path(".")) -> "RunStore":
    """Return the run store of `recipe` below the project's top folder `root`; the folder is created.

    Raises:
        UnwritableError: the folder cannot be created.
    """
    return RunStore(root / RUNS / recipe)


def sweep(root: Path = Path(".")) -> None:
    """Remove what killed processes left in the run stores below `root`; those in use are left alone."""
    from filelock import FileLock, Timeout

    for folder in (root / RUNS).glob("*/"):
        with suppress(OSError, Timeout):
            store = RunStore(folder)
            if store.leftovers():
                with FileLock(folder / LOCK, timeout=0):
                    store.tidy()


class RunStore:
    """The folder of one recipe.

        with open_run(recipe(...)).locked() as run:
            if not run.restore(outputs):
                ...  # checkpoints go to run.folder
                run.keep(outputs)

    Attributes:
        recipe: name of the computation.
        folder: where the computation keeps its checkpoints; the names in `TAKEN` are taken. Everything else is removed
            once the outputs are kept.

    Raises:
        UnwritableError: the folder cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        self.recipe, self.folder = folder.name, folder
        self._outputs = folder / OUTPUTS
        self._done = folder / DONE
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator["RunStore"]:
        """Hold the recipe for this process; a second one waits. The lock of a dead process is free again.

        Raises:
            UnwritableError: the lock cannot be written, or the file system has no locks.
        """
        from filelock import FileLock, Timeout  # takes longer to import than `acf --help` takes

        lock = FileLock(self.folder / LOCK)
        try:
            with writing(self.folder / LOCK):
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    print(f"another process is at work in {self.folder}; waiting until it ends", flush=True)
                    lock.acquire()
        except NotImplementedError:
            raise UnwritableError(
                f"{self.folder} is on a file system without file locks; move the project to one that has them"
            ) from None
        try:
            yield self
        finally:
            lock.release()

    def note_parts(self, parts: Mapping[str, Any]) -> None:
        """Write what the recipe is made of to `recipe.json`, unless it stands there.

        Args:
            parts: as `acf.runs.recipe.recipe_parts` gives them.

        Raises:
            UnwritableError: the file cannot be written.
        """
        write_if_changed(self.folder / RECIPE, json.dumps(parts, indent=1).encode())

    def restore(self, outputs: Sequence[Path]) -> bool:
        """Copy the finished outputs of this recipe to their places; say whether they were there, intact.

        Raises:
            UnwritableError: an output cannot be written.
        """
        hashes = self._finished()
        if hashes is None or set(hashes) != {path.name for path in outputs}:
            return False
        contents = {path: self._intact(path.name, hashes[path.name]) for path in outputs}
        if damaged := [path.name for path, content in contents.items() if content is None]:
            print(f"{self._outputs / damaged[0]} is damaged; computing it again", flush=True)
            return False
        for path, content in contents.items():
            assert content is not None
            write_atomically(path, content)
        folders = dict.fromkeys(path.parent for path in outputs)
        named = {folder: ", ".join(path.name for path in outputs if path.parent == folder) for folder in folders}
        where = " and ".join(f"{names} to {folder}" for folder, names in named.items())
        again = "delete that folder and these files to compute it again"
        print(f"restored {where} from {self.folder} ({again})", flush=True)
        return True

    @property
    def finished(self) -> bool:
        """Whether outputs are kept."""
        return self._finished(aloud=False) is not None

    def keep(self, outputs: Sequence[Path]) -> None:
        """Store copies of the finished `outputs`, mark the recipe as done, and remove the checkpoints.

        Raises:
            UnwritableError: a copy cannot be written.
            OSError: an output is missing.
        """
        discard(self._done)
        hashes = {}
        for path in outputs:
            content = path.read_bytes()
            hashes[path.name] = hashlib.sha256(content).hexdigest()
            write_atomically(self._outputs / path.name, content)
        write_atomically(self._done, json.dumps({"sha256": hashes}, indent=1).encode())
        self.tidy()

    def tidy(self) -> None:
        """Remove files that a killed process left half written and, once the outputs are kept, checkpoints.

        To be called by the process that holds the recipe.
        """
        for path in self.leftovers():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                discard(path)

    def leftovers(self) -> list[Path]:
        """Return what `tidy` removes."""
        others = [path for path in self.folder.iterdir() if path.name not in TAKEN]
        half_written = [path for path in others if path.match(HALF_WRITTEN)] + [*self._outputs.glob(HALF_WRITTEN)]
        if len(half_written) == len(others):
            return half_written
        hashes = self._finished(aloud=False) or {}
        kept = hashes and all(self._intact(name, digest) is not None for name, digest in hashes.items())
        return [*half_written, *others] if kept else half_written

    def _intact(self, name: str, digest: str) -> bytes | None:
        """Return the content of a kept output, None unless it is that which was kept."""
        try:
            content = (self._outputs / name).read_bytes()
        except OSError:
            return None
        return content if hashlib.sha256(content).hexdigest() == digest else None

    def _finished(self, aloud: bool = True) -> dict[str, str] | None:
        """Return the hash of each kept output; None if there is none, or if the list of them is damaged."""
        try:
            return kept_hashes(self.folder)
        except ValueError:
            if aloud:
                print(f"{self._done} is damaged; computing the outputs again", flush=True)
            return None


def kept_hashes(folder: Path) -> dict[str, str] | None:
    """Return the hash of each output that is kept in the run store `folder`, by its name; None while there is none.

    Raises:
        ValueError: the list of them is damaged.
    """
    try:
        hashes = json.loads((folder / DONE).read_bytes())["sha256"]
        if all(re.fullmatch("[0-9a-f]{64}", digest) for digest in hashes.values()):
            return hashes
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise ValueError(f"{DONE} is damaged")
