"""`acf runs` and `acf runs prune` on a real run store."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from acf import cli
from acf.runs.reached import Reached, note_reached
from acf.runs.recipe import recipe_name
from acf.runs.store import RUNS, RunStore
from acf.runs.stored import stored_runs
from acf.settings.params import Run
from acf.stages.baselines import baselines
from acf.stages.evaluate import evaluate
from acf.stages.named_recipes import computation_of
from acf.stages.project import Project
from acf.stages.run_list import Entry, list_runs
from acf.stages.train import train
from tests.runs.test_store import hold
from tests.stages.test_explain import change

pytestmark = pytest.mark.usefixtures("code_hashed_once")
L2 = Run("digits", "acf-l2", 0)
Changing = Callable[..., RunStore]


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    """A copy of the study in which acf-l2 is trained."""
    for part in ("data", "models", ".acf"):
        shutil.copytree(trained / part, tmp_path / "copy" / part)
    shutil.copy(trained / "params.yaml", tmp_path / "copy")
    for run in stored_runs(tmp_path / "copy"):
        if run.stage != "train":
            shutil.rmtree(run.folder)
    return tmp_path / "copy"


@pytest.fixture
def begun(root: Path) -> Changing:
    """Make an interrupted training, with other settings, inputs or code than those of today."""

    def make(run: Run = L2, **changes: dict[str, str]) -> RunStore:
        parts = computation_of(Project(root), "train", L2).parts()
        parts["settings"] |= {**run._asdict(), **changes.get("settings", {})}
        parts["inputs"] |= changes.get("inputs", {})
        parts["code"] |= changes.get("code", {})
        store = RunStore(root / RUNS / recipe_name(parts))
        store.note_parts(parts)
        (store.folder / "checkpoint.pt").write_bytes(bytes(5000))
        note_reached(store.folder, Reached(3, 12, 2.5))
        return store

    return make


def listed(root: Path) -> dict[str, Entry]:
    return {entry.recipe: entry for entry in list_runs(root)}


def recipe_of(root: Path, stage: str = "train") -> str:
    return recipe_name(computation_of(Project(root), stage, L2).parts())


def test_runs_are_listed_with_what_became_of_them(root: Path, begun: Changing) -> None:
    evaluate(*L2, "cpu", root)
    baselines("digits", root)
    expected = {
        recipe_of(root): ("train", "finished", "current"),
        recipe_of(root, "evaluate"): ("evaluate", "finished", "current"),
        recipe_of(root, "baselines"): ("baselines", "finished", "current"),
        begun(settings={"training": {}}).recipe: ("train", "interrupted", "settings changed"),
        begun(code={"flows/flow.py": "x"}).recipe: ("train", "interrupted", "code changed"),
        begun(inputs={"train": "x"}, code={"flows/flow.py": "x"}).recipe: (
            *("train", "interrupted", "input, code changed"),
        ),
        begun(Run("digits", "acf-l2", 9)).recipe: ("train", "interrupted", "not in params.yaml"),
        RunStore(root / RUNS / "0123456789").recipe: (None, "interrupted", "unknown"),
    }
    found = listed(root)
    assert {recipe: (entry.stage, entry.state, entry.named) for recipe, entry in found.items()} == expected
    metrics = json.loads((root / "results/digits/acf-l2/seed0/metrics.json").read_text())
    assert found[recipe_of(root, "evaluate")].bits_per_dim == metrics["bits_per_dim"]
    last = (root / "models/digits/acf-l2/seed0/history.csv").read_text().splitlines()[-1].split(",")
    assert found[recipe_of(root)].bits_per_dim == float(last[6])
    half = found[begun(code={"flows/flow.py": "x"}).recipe]
    assert (half.step, half.steps, half.bits_per_dim) == (3, 12, 2.5)
    assert half.bytes > 5000
    assert half.age < 600


def test_a_model_that_is_kept_but_not_in_place_is_the_one_that_counts(root: Path) -> None:
    evaluate(*L2, "cpu", root)
    recipe = recipe_of(root, "evaluate")
    shutil.rmtree(root / "models")
    assert listed(root)[recipe].named == "current"
    change(root, "draws: 2", "draws: 3")
    assert listed(root)[recipe].named == "settings changed"
    change(root, "steps: 12", "steps: 13")  # the model of today's settings is not trained
    assert listed(root)[recipe].named == "unclear"
    assert "is missing" in str(listed(root)[recipe].problem)


def test_a_run_without_recipe_json_that_is_asked_for_today_is_current(root: Path) -> None:
    recipe = recipe_of(root)
    (root / RUNS / recipe / "recipe.json").unlink()
    assert (listed(root)[recipe].stage, listed(root)[recipe].named) == (None, "current")
    train(*L2, "cpu", root)
    assert listed(root)[recipe].stage == "train"


def test_damage_is_shown_and_takes_nothing_down(root: Path, begun: Changing) -> None:
    sound = begun(code={"flows/flow.py": "x"}).recipe
    folder = root / RUNS / recipe_of(root)
    (folder / "outputs/history.csv").write_bytes(b"\xff")
    assert "history.csv is not a table" in str(listed(root)[folder.name].problem)
    (folder / "done.json").write_text("{")
    (folder / "recipe.json").write_text("{")
    found = listed(root)
    assert found[folder.name].problem == "recipe.json is damaged; done.json is damaged"
    assert found[sound].problem is None


def called(root: Path, monkeypatch: pytest.MonkeyPatch, *line: str) -> int | str | None:
    with monkeypatch.context() as patch:
        patch.chdir(root)
        patch.setattr(sys, "argv", ["acf", "runs", *line])
        with pytest.raises(SystemExit) as stop:
            cli.main()
    return stop.value.code


def test_the_commands(
    root: Path, begun: Changing, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stale = begun(code={"flows/flow.py": "x"})
    assert called(root, monkeypatch, "--json") == 0
    assert {entry["recipe"] for entry in json.loads(capsys.readouterr().out)} == {stale.recipe, recipe_of(root)}
    assert called(root, monkeypatch) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if stale.recipe in line]
    assert "interrupted at step 3/12" in line
    assert called(root, monkeypatch, "prune", "--dry-run") == 0
    out = capsys.readouterr().out
    assert f"to remove: train digits/acf-l2/seed0 ({stale.recipe}), interrupted, code changed, " in out
    assert called(root, monkeypatch, "prune") == 1  # there is no terminal here
    assert "add --yes" in capsys.readouterr().err
    assert stale.folder.exists()
    size = listed(root)[stale.recipe].bytes
    assert called(root, monkeypatch, "prune", "--yes") == 0
    assert f"freed {size / 1e3:.1f} kB" in capsys.readouterr().out
    assert set(listed(root)) == {recipe_of(root)}
    (root / "models/digits/acf-l2/seed0/model.safetensors").unlink()
    train(*L2, "cpu", root)
    assert "restored" in capsys.readouterr().out


def test_prune_keeps_what_is_running_recent_finished_or_not_understood(
    root: Path, begun: Changing, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = RunStore(root / RUNS / "0123456789")
    change(root, "steps: 12", "steps: 13")
    begun(code={"flows/flow.py": "x"})
    finished = next(run.folder for run in stored_runs(root) if run.state == "finished")
    everything = set(listed(root))
    assert len(everything) == 3
    assert called(root, monkeypatch, "prune", "--yes", "--older-than", "1") == 0
    assert set(listed(root)) == everything
    assert "kept: 2 runs" in capsys.readouterr().out
    with hold(finished) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert called(root, monkeypatch, "prune", "--yes") == 0
        assert set(listed(root)) == {finished.name, unknown.recipe}
        process.communicate("go on\n", timeout=20)
    (finished / "seen").unlink()
    assert called(root, monkeypatch, "prune", "--yes", "--interrupted") == 0
    assert set(listed(root)) == {finished.name, unknown.recipe}
    assert called(root, monkeypatch, "prune", "--yes") == 0
    assert set(listed(root)) == {unknown.recipe}
    assert called(root, monkeypatch, "prune", "--yes", "--unknown") == 0
    assert not listed(root)
