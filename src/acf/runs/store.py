"""The run store: a folder per recipe that outlives preemption and keeps finished outputs.

Both engines remove a stage's outputs before it runs, so checkpoints and the only copy of a long computation's
result cannot live among them.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from acf.runs.files import write_atomically
from acf.runs.recipe import file_hash

RUNS = Path(".acf/runs")


def open_run(recipe: str, root: Path = Path(".")) -> "RunStore":
    """Return the run store of `recipe` below the project's top folder `root`; the folder is created."""
    return RunStore(root / RUNS / recipe)


class RunStore:
    """The folder of one recipe.

        with open_run(recipe(...)).locked() as run:
            if not run.restore(outputs):
                ...  # checkpoints go to run.folder
                run.keep(outputs)

    Attributes:
        recipe: name of the computation.
        folder: where the computation keeps its checkpoints; `done.json`, `lock` and `outputs` are taken.
    """

    def __init__(self, folder: Path) -> None:
        self.recipe, self.folder = folder.name, folder
        self._outputs = folder / "outputs"
        self._done = folder / "done.json"
        folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator["RunStore"]:
        """Hold the recipe for this process; a second one waits. The lock of a dead process is free again."""
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"another process is at work in {self.folder}; waiting until it ends", flush=True)
            lock.acquire()
        try:
            yield self
        finally:
            lock.release()

    def restore(self, outputs: Sequence[Path]) -> bool:
        """Copy the finished outputs of this recipe to their places; say whether they were there, intact."""
        hashes = self._finished(outputs)
        if hashes is None:
            return False
        for path in outputs:
            stored = self._outputs / path.name
            if not stored.is_file() or file_hash(stored) != hashes[path.name]:
                print(f"{stored} is damaged; computing it again", flush=True)
                return False
        for path in outputs:
            _copy(self._outputs / path.name, path)
        names = ", ".join(path.name for path in outputs)
        where = f"{outputs[0].parent} from {self.folder}"
        print(f"restored {names} to {where} (delete that folder to compute it again)", flush=True)
        return True

    def keep(self, outputs: Sequence[Path]) -> None:
        """Store copies of the finished `outputs` and mark the recipe as done.

        Raises:
            OSError: an output is missing or the disk is full.
        """
        self._done.unlink(missing_ok=True)
        for path in outputs:
            _copy(path, self._outputs / path.name)
        hashes = {path.name: file_hash(self._outputs / path.name) for path in outputs}
        write_atomically(self._done, json.dumps({"sha256": hashes}, indent=1).encode())

    def _finished(self, outputs: Sequence[Path]) -> dict[str, str] | None:
        try:
            hashes = json.loads(self._done.read_text(encoding="utf-8"))["sha256"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            print(f"{self._done} is damaged; computing the outputs again", flush=True)
            return None
        names = {path.name for path in outputs}
        return hashes if set(hashes) == names else None


def _copy(source: Path, target: Path) -> None:
    write_atomically(target, source.read_bytes())
