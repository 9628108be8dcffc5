"""`acf explain` says what a stage would do and why, for real studies and their run stores, and writes nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from acf.errors import ConfigError, StoppedError
from acf.runs.code import CODE, PACKAGE
from acf.runs.recipe import recipe_name
from acf.runs.store import RUNS, RunStore
from acf.settings.params import Run
from acf.stages.baselines import baselines
from acf.stages.evaluate import evaluate
from acf.stages.explain import explain
from acf.stages.named_recipes import computation_of
from acf.stages.project import Project
from acf.stages.sample import sample
from acf.stages.train import train
from acf.training.validation import validation_measures
from tests.runs.test_store import hold

pytestmark = pytest.mark.usefixtures("code_hashed_once")
Study = Callable[..., Path]
L2 = Run("digits", "acf-l2", 0)


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    """A copy of the study in which acf-l2 is trained."""
    for part in ("data", "models", ".acf"):
        shutil.copytree(trained / part, tmp_path / "copy" / part)
    shutil.copy(trained / "params.yaml", tmp_path / "copy")
    return tmp_path / "copy"


def explained(root: Path, stage: str = "train", run: Run = L2) -> str:
    """The paragraph on a stage, made without changing anything in the project."""
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    text = explain(stage, *run, root=root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    assert "\n" not in text
    return text


def change(root: Path, old: str, new: str) -> None:
    text = (root / "params.yaml").read_text()
    assert old in text
    (root / "params.yaml").write_text(text.replace(old, new, 1))


def recipe_of(root: Path, stage: str = "train", run: Run = L2) -> str:
    return recipe_name(computation_of(Project(root), stage, run).parts())


def test_nothing_computed_yet(study: Study) -> None:
    root = study()
    text = explained(root)
    assert f"train digits/acf-l2/seed0 would be computed from the start: no run of its recipe {recipe_of(root)}" in text
    assert "knows no earlier run" in text
    assert "`dvc status train-digits@acf-l2-0`" in text
    text = explained(root, "evaluate")
    assert "cannot run yet" in text
    assert "run: acf train --experiment digits --variant acf-l2 --seed 0" in text
    assert not (root / ".acf").exists()


def test_a_finished_run_would_be_restored(root: Path) -> None:
    text = explained(root)
    assert "would be restored, not computed" in text
    assert "seed0 are of this recipe" in text
    shutil.rmtree(root / "models")
    text = explained(root)
    assert "would be restored, not computed" in text
    assert "All of its outputs are missing" in text
    (root / RUNS / recipe_of(root) / "outputs/history.csv").write_text("damaged")
    assert "would be computed again: of its recipe" in explained(root)


def test_a_changed_setting_is_named_and_the_outputs_in_place_are_of_the_earlier_run(root: Path) -> None:
    before = recipe_of(root)
    change(root, "steps: 12", "steps: 13")
    text = explained(root)
    assert "would be computed from the start" in text
    assert f"The closest earlier run is {before} (finished, changed " in text
    assert "ago): training.steps was 12 and is 13." in text
    assert f"are not of this recipe but of earlier run {before}" in text
    text = explained(root, "evaluate")
    assert f"seed0 is of recipe {before}, but params.yaml and the code name {recipe_of(root)}" in text
    shutil.rmtree(root / ".acf")
    assert f"but of recipe {before}, of which the run store knows nothing" in explained(root)


def test_the_closest_run_and_no_other_variant_is_compared(root: Path) -> None:
    first = recipe_of(root)
    parts = computation_of(Project(root), "train", L2).parts()
    far = {**parts, "settings": {**parts["settings"], "training": {}}}
    RunStore(root / RUNS / recipe_name(far)).note_parts(far)
    other = {**parts, "settings": {**parts["settings"], "variant": "resflow"}}
    RunStore(root / RUNS / recipe_name(other)).note_parts(other)
    change(root, "learning_rate: 0.002", "learning_rate: 0.003")
    assert f"closest earlier run is {first} " in explained(root)


def test_a_changed_input_is_named(root: Path) -> None:
    path = root / "data/digits/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["sha256"]["train"] = "0" * 64
    path.write_text(json.dumps(manifest))
    assert "the input `train` has another content (" in explained(root)


@pytest.mark.slow
def test_changed_code_is_named_by_the_program_itself(root: Path, tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "src/acf", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "src/acf/training/muon.py"
    path.write_text(path.read_text() + "\nCHANGED = True\n")
    command = [sys.executable, "-m", "acf.cli", "explain", "train", "--experiment", "digits", "--variant", "acf-l2"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ago): code differs in training/muon.py." in done.stdout


def test_a_run_of_an_earlier_version_is_not_guessed_about(root: Path) -> None:
    (root / RUNS / recipe_of(root) / "recipe.json").unlink()
    change(root, "steps: 12", "steps: 13")
    text = explained(root)
    assert "1 run has no readable recipe.json" in text
    assert "what differs is not known" in text
    assert "closest" not in text


def test_an_interrupted_and_a_running_training(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    root = study()

    def stopping(*arguments: Any) -> dict[str, Tensor]:
        os.kill(os.getpid(), signal.SIGUSR1)
        return validation_measures(*arguments)

    monkeypatch.setattr("acf.training.trainer.validation_measures", stopping)
    with pytest.raises(StoppedError):
        train(*L2, "cpu", root)
    assert "would go on from a checkpoint at step 4 of 12" in explained(root)
    with hold(root / RUNS / recipe_of(root)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        text = explained(root)
        assert "would wait: another process is at work" in text
        assert "step 4 of 12" in text
        process.communicate("go on\n", timeout=20)


def test_stages_of_models_and_baselines(root: Path) -> None:
    for stage in (evaluate, sample):
        stage(*L2, "cpu", root)
    baselines("digits", root)
    for stage in ("evaluate", "sample", "baselines"):
        text = explained(root, stage)
        assert "would be restored" in text
        assert "are of this recipe" in text
    assert "`dvc status baselines@digits`" in text
    change(root, "draws: 2", "draws: 3")
    for stage in ("evaluate", "baselines"):
        text = explained(root, stage)
        assert "evaluation.draws was 2 and is 3" in text
        assert "are not of this recipe but of earlier run" in text
    assert "would be restored" in explained(root, "sample")
    assert "`acf explain train" not in explained(root, "evaluate")


def test_a_seed_that_the_study_does_not_have(root: Path) -> None:
    assert "params.yaml does not name this run" in explained(root, run=Run("digits", "acf-l2", 7))


def test_stages_without_a_recipe_say_what_they_depend_on(root: Path) -> None:
    assert "would only recompute its content hashes" in explain("prepare", dataset="digits", root=root)
    shutil.rmtree(root / "data/digits")
    assert "would fetch and convert it" in explain("prepare", dataset="digits", root=root)
    text = explain("report", "digits", root=root)
    assert "3 runs" in text
    assert ", ".join(CODE["report"]) in text
    assert "has no recipe" in explain("index", root=root)


def test_what_cannot_be_explained(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"no stage 'sync'; stages are: prepare, train"):
        explain("sync", root=root)
    for stage, option in (("train", "experiment"), ("baselines", "experiment"), ("report", "experiment")):
        with pytest.raises(ConfigError, match=f"acf explain {stage} needs the option --{option}"):
            explain(stage, root=root)
    with pytest.raises(ConfigError, match="explain sample needs the option --variant"):
        explain("sample", "digits", root=root)
    with pytest.raises(ConfigError, match="prepare needs the option --dataset"):
        explain("prepare", root=root)
    with pytest.raises(ConfigError, match="no experiment 'x'"):
        explain("report", "x", root=root)
