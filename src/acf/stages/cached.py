"""What stages with a recipe do alike: restore the outputs of an earlier computation, or compute and keep them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from acf.errors import UnwritableError
from acf.runs.files import when_there_is_space, write_atomically
from acf.runs.recipe import code_hashes, recipe_name, recipe_parts
from acf.runs.store import RunStore, open_run, sweep
from acf.runs.threads import paying_threads
from acf.stages.code_notes import note_code
from acf.stages.recorded import recorded_recipe


@dataclass(frozen=True)
class Outputs:
    """What a computation hands over to be written.

    Attributes:
        files: content of each output file, by its name.
        summary: what to say after "wrote <place>"; may be empty.
        loss: what to say where the files cannot be written and are not computed again in seconds; may be empty.
    """

    files: Mapping[str, bytes]
    summary: str = ""
    loss: str = ""


@dataclass(frozen=True)
class Computation:
    """One call of a stage, described by everything its outputs depend on.

    Attributes:
        stage: a key of `acf.runs.recipe.CODE`.
        settings: resolved settings that the outputs depend on.
        inputs: content hash of each input.
        paths: where the outputs belong, in one folder or several; no two have the same name.
        work: number of values in the largest tensor, which decides how many threads compute (`acf.runs.threads`). The
            outputs depend on them by rounding errors only.
        compute: returns the outputs; checkpoints may go to the folder of the run store it is given.
    """

    stage: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    paths: Sequence[Path]
    work: int
    compute: Callable[[RunStore], Outputs]

    def parts(self, code: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return what the recipe is made of.

        Args:
            code: hash of each file that the stage depends on; read from the files by default.

        Raises:
            AcfError: a module cannot be read as Python.
        """
        return recipe_parts(self.stage, self.settings, self.inputs, code_hashes(self.stage) if code is None else code)

    def restore_or_compute(self, root: Path) -> None:
        """Restore the outputs if this recipe has been computed before; otherwise compute, write and keep them.

        Outputs in place that say that they are of this recipe, such as those of `dvc pull`, are kept as they are.

        Args:
            root: the project's top folder.

        Raises:
            AcfError: whatever `compute` raises, nothing is written then; or an output cannot be written, not even after
                some minutes where the disk is full. Outputs that cannot be kept in the run store are no error.
        """
        sweep(root)
        with self._locked(root) as store:
            if self._restored_or_in_place(store):
                return
            with paying_threads(self.work):
                outputs = self.compute(store)
            self._write(outputs)
            print(f"wrote {self.place}{outputs.summary and ': ' + outputs.summary}", flush=True)
            self._keep(store)

    def restore(self, root: Path) -> bool:
        """Restore the outputs if this recipe has been computed before, and say whether they are there.

        Raises:
            AcfError: an output cannot be written.
        """
        with self._locked(root) as store:
            return self._restored_or_in_place(store)

    @property
    def place(self) -> str:
        """Where the outputs belong, in words: the file if there is one, else their folder or folders."""
        folders = dict.fromkeys(path.parent for path in self.paths)
        return str(self.paths[0]) if len(self.paths) == 1 else " and ".join(map(str, folders))

    @contextmanager
    def _locked(self, root: Path) -> Iterator[RunStore]:
        """Hold the recipe, after a note of what it is made of."""
        parts = self.parts()
        note_code(self.stage, parts["code"], root)
        with open_run(recipe_name(parts), root).locked() as store:
            with suppress(UnwritableError):  # the note is for people; on a full disk a computation may still go on
                store.note_parts(parts)
            yield store

    def _restored_or_in_place(self, store: RunStore) -> bool:
        if store.restore(self.paths):
            return True
        if recorded_recipe(self.paths, whole=True) != store.recipe:
            return False
        print(f"{self.place} is of this recipe already", flush=True)
        self._keep(store)
        return True

    def _keep(self, store: RunStore) -> None:
        try:
            store.keep(self.paths)
        except UnwritableError as error:
            print(f"{error}; {self.place} cannot be restored from {store.folder}", flush=True)

    def _write(self, outputs: Outputs) -> None:
        try:
            for path in self.paths:
                when_there_is_space(partial(write_atomically, path, outputs.files[path.name]))
        except UnwritableError as error:
            raise UnwritableError(f"{error}{outputs.loss and '; ' + outputs.loss}") from None


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Return the content of a JSON file for people and programs; NaN and infinity are refused by ValueError."""
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()
