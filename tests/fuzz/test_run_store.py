"""Damage to the run store: a checkpoint or kept outputs are those that were written, or they are not used."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from acf.runs.reached import Reached, note_reached
from acf.runs.recipe import recipe_name, recipe_parts
from acf.runs.store import RunStore
from acf.runs.stored import read_stored
from acf.stages.run_list import list_runs
from acf.training.history import COLUMNS
from acf.training.trainer import Trainer
from tests.fuzz.cases import few_or_many, same, try_all
from tests.fuzz.damage import damaged
from tests.fuzz.finished import no_code
from tests.training.trainers import trainer

NAMES = ("model.bin", "history.csv")


def empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


@few_or_many
def test_kept_outputs_are_restored_as_they_were_or_not_at_all(cases: int, tmp_path: Path) -> None:
    outputs = [tmp_path / "there" / name for name in NAMES]
    contents = {path: bytes(range(200)) + path.name.encode() for path in outputs}
    sound = RunStore(tmp_path / "sound")
    for path, content in contents.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    sound.keep(outputs)
    files = [path for path in sound.folder.rglob("*") if path.is_file()]
    assert len(files) >= 3

    def holds(case: tuple[Path, bytes]) -> None:
        place, content = case
        folder = tmp_path / "damaged"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sound.folder, folder)
        (folder / place.relative_to(sound.folder)).write_bytes(content)
        for path in outputs:
            path.unlink(missing_ok=True)
        if RunStore(folder).restore(outputs):
            assert {path: path.read_bytes() for path in outputs} == contents

    damage = st.sampled_from(files).flatmap(lambda path: st.tuples(st.just(path), damaged(path.read_bytes())))
    try_all(cases, damage, holds)


@few_or_many
def test_damaged_stores_are_listed(cases: int, tmp_path: Path, study: Callable[..., Path]) -> None:
    root = study()
    parts = recipe_parts("train", {"experiment": "digits", "variant": "resflow", "seed": 0}, {"train": "a"}, {})
    sound = RunStore(tmp_path / recipe_name(parts))
    sound.note_parts(parts)
    history = tmp_path / "history.csv"
    history.write_text(",".join(COLUMNS) + "\n1,0.5,8,4.0,1.0,0.1,,\n")
    sound.keep([history])
    note_reached(sound.folder, Reached(1, 2, 4.0))
    files = [path for path in sound.folder.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"recipe.json", "done.json", "progress.json", "history.csv"}
    folder = root / ".acf/runs" / sound.recipe

    def holds(case: tuple[Path, bytes]) -> None:
        place, content = case
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(sound.folder, folder)
        (folder / place.relative_to(sound.folder)).write_bytes(content)
        assert read_stored(folder).parts in (parts, None)
        with pytest.MonkeyPatch.context() as patch:
            for module in ("cached", "named_recipes"):
                patch.setattr(f"acf.stages.{module}.code_hashes", no_code)
            (entry,) = list_runs(root)
        json.dumps(entry.as_dict(), allow_nan=False)

    damage = st.sampled_from(files).flatmap(lambda path: st.tuples(st.just(path), damaged(path.read_bytes())))
    try_all(cases, damage, holds)


def state(run: Trainer) -> dict[str, Any]:
    """Everything that a training run depends on."""
    return {
        "step": run.step,
        "flow": run.flow.state_dict(),
        "average": run.average.state_dict(),
        "optimiser": run.optimiser.state_dict(),
        "history": run.history.state_dict(),
        "random": run._random_state,
    }


@few_or_many
def test_training_goes_on_from_the_checkpoint_that_was_written_or_starts_again(
    cases: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fresh = state(trainer(tmp_path / "none"))
    whole = trainer(empty(tmp_path / "sound"), steps=2, validate_every=2)
    whole.run()
    (path,) = (tmp_path / "sound").glob("checkpoint.pt")
    content = path.read_bytes()
    sound = state(trainer(path.parent))
    assert sound["step"] == 2

    def holds(changed: bytes) -> None:
        folder = empty(tmp_path / "damaged")
        (folder / path.name).write_bytes(changed)
        capsys.readouterr()
        found = state(trainer(folder))
        if found["step"]:
            assert same(found, sound)
        else:
            assert same(found, fresh)
            assert "damaged" in capsys.readouterr().out

    try_all(cases, damaged(content), holds)
