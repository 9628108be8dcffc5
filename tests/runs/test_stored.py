"""What lies in the run store is read without changing it, and damage is said."""

import json
from pathlib import Path
from typing import Any

import pytest

from acf.runs.reached import Reached, note_reached, read_reached
from acf.runs.recipe import recipe_name, recipe_parts
from acf.runs.store import RUNS, RunStore, open_run
from acf.runs.stored import read_stored, stored_runs
from tests.runs.test_store import hold

SETTINGS = {"experiment": "digits", "variant": "resflow", "seed": 0, "model": {"shape": (1, 8, 8), "rate": 1e-3}}
PARTS = recipe_parts("train", SETTINGS, {"train": "abc"}, {"flows/flow.py": "def"})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(tmp_path: Path) -> RunStore:
    run = open_run(recipe_name(PARTS), tmp_path)
    run.note_parts(PARTS)
    return run


def test_what_a_recipe_was_made_of_is_read_back(tmp_path: Path, run: RunStore) -> None:
    note_reached(run.folder, Reached(3, 12, 2.5))
    (run.folder / "checkpoint.pt").write_bytes(bytes(1000))
    before = contents(tmp_path)
    (found,) = stored_runs(tmp_path)
    assert contents(tmp_path) == before
    assert found.parts == PARTS
    assert (found.stage, found.identity) == ("train", ("digits", "resflow", 0))
    assert (found.state, found.faults, found.reached) == ("interrupted", (), Reached(3, 12, 2.5))
    assert found.bytes == sum(map(len, before.values()))
    assert found.age < 600


def test_the_parts_outlive_the_checkpoint_and_are_written_once(tmp_path: Path, run: RunStore) -> None:
    output = tmp_path / "model.bin"
    output.write_bytes(b"weights")
    note_reached(run.folder, Reached(12, 12, 2.5))
    stamp = (run.folder / "recipe.json").stat().st_mtime_ns
    run.note_parts(PARTS)
    run.keep([output])
    assert (run.folder / "recipe.json").stat().st_mtime_ns == stamp
    assert not (run.folder / "progress.json").exists()
    found = read_stored(run.folder)
    assert (found.state, found.parts, found.damaged_outputs()) == ("finished", PARTS, [])
    (run.folder / "outputs/model.bin").write_bytes(b"other")
    assert read_stored(run.folder).damaged_outputs() == ["model.bin"]
    (run.folder / "outputs/model.bin").unlink()
    assert read_stored(run.folder).faults == ("outputs/model.bin is missing",)


def test_a_run_is_running_while_its_lock_is_held(run: RunStore) -> None:
    with hold(run.folder) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert read_stored(run.folder).state == "running"
        process.communicate("go on\n", timeout=20)
    assert read_stored(run.folder).state == "interrupted"


OTHER = {**PARTS, "settings": {**PARTS["settings"], "seed": 1}}
DAMAGED: list[Any] = ["", "[", "[]", "null", "5", "{}", "[" * 100_000, OTHER, {**PARTS, "inputs": []}, {"stage": 1}]


@pytest.mark.parametrize("content", DAMAGED, ids=lambda content: str(content)[:20])
def test_parts_that_are_not_those_of_the_name_are_damaged(tmp_path: Path, run: RunStore, content: Any) -> None:
    (run.folder / "recipe.json").write_text(content if isinstance(content, str) else json.dumps(content))
    (run.folder / "done.json").write_text("[]")
    (tmp_path / RUNS / "a-file").touch()
    (found,) = stored_runs(tmp_path)
    assert found.parts is None
    assert found.faults == ("recipe.json is damaged", "done.json is damaged")


def test_a_run_of_an_earlier_version_says_so(tmp_path: Path) -> None:
    open_run("0123456789", tmp_path)
    (found,) = stored_runs(tmp_path)
    assert found.parts is None
    assert found.faults == ("it has no recipe.json: a run of an earlier version",)


@pytest.mark.parametrize(
    "content", ["", "{}", "[3]", '{"step": "3", "steps": 4, "bits_per_dim": 1}', "[" * 9999]
    + [f'{{"step": {step}, "steps": 4, "bits_per_dim": {value}}}' for step, value in ((-1, 1), (3, "NaN"), (True, 1))]
)  # fmt: skip
def test_damaged_progress_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "progress.json").write_text(content.replace("True", "true"))
    assert read_reached(tmp_path) is None


def test_progress_on_a_disk_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    note_reached(tmp_path / "file", Reached(1, 2, None))
    assert read_reached(tmp_path / "file") is None
