"""What stages with a recipe do alike: restore the outputs of an earlier computation, or compute and keep them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acf.runs.files import write_atomically
from acf.runs.recipe import recipe
from acf.runs.store import RunStore, open_run, sweep
from acf.runs.threads import paying_threads


@dataclass(frozen=True)
class Outputs:
    """What a computation hands over to be written.

    Attributes:
        files: content of each output file, by name.
        summary: what to say after "wrote <place>"; may be empty.
    """

    files: Mapping[str, bytes]
    summary: str = ""


@dataclass(frozen=True)
class Computation:
    """One call of a stage, described by everything its outputs depend on.

    Attributes:
        stage: a key of `acf.runs.recipe.CODE`.
        settings: resolved settings that the outputs depend on.
        inputs: content hash of each input.
        folder: where the outputs belong.
        names: file names of the outputs.
        work: number of values in the largest tensor, which decides how many threads compute (`acf.runs.threads`). The
            outputs depend on them by rounding errors only.
        compute: returns the outputs; checkpoints may go to the folder of the run store it is given.
    """

    stage: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    folder: Path
    names: Sequence[str]
    work: int
    compute: Callable[[RunStore], Outputs]

    def restore_or_compute(self, root: Path) -> None:
        """Restore the outputs if this recipe has been computed before; otherwise compute, write and keep them.

        Args:
            root: the project's top folder.

        Raises:
            AcfError: whatever `compute` raises, nothing is written then; or an output cannot be written.
        """
        paths = [self.folder / name for name in self.names]
        sweep(root)
        with self._run(root).locked() as store:
            if store.restore(paths):
                return
            with paying_threads(self.work):
                outputs = self.compute(store)
            for path in paths:
                write_atomically(path, outputs.files[path.name])
            store.keep(paths)
            place = paths[0] if len(paths) == 1 else self.folder
            print(f"wrote {place}{outputs.summary and ': ' + outputs.summary}", flush=True)

    def restore(self, root: Path) -> bool:
        """Restore the outputs if this recipe has been computed before, and say whether it has.

        Raises:
            AcfError: an output cannot be written.
        """
        with self._run(root).locked() as store:
            return store.restore([self.folder / name for name in self.names])

    def _run(self, root: Path) -> RunStore:
        return open_run(recipe(self.stage, self.settings, self.inputs), root)


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Return the content of a JSON file for people and programs; NaN and infinity are refused by ValueError."""
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()
