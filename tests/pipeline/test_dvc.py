"""The real DVC: what runs again after a change, and what comes back without running; Snakemake after it."""

import json
import re
import shutil
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.pipeline.engines import DRAWS, EVERYTHING, MEASUREMENTS, ONE_VARIANT, RATE, WIDE, calls
from tests.pipeline.project import Project

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dvc(tmp_path_factory: pytest.TempPathFactory, server: str) -> Project:
    project = Project(tmp_path_factory.mktemp("dvc"), server=server)
    assert project.dvc() == sorted(["code", *EVERYTHING])
    project.commit()
    return project


def test_dvc_second_run_does_nothing(dvc: Project) -> None:
    assert dvc.dvc() == []


def test_snakemake_notices_changed_settings_of_what_dvc_has_built(dvc: Project, tmp_path: Path) -> None:
    project = dvc.copy(tmp_path / "copy")
    assert project.snakemake() == []
    metrics = "results/digits/resflow/seed0/metrics.json"
    with project.changed(DRAWS, 2):
        planned = project.output("snakemake", "--dry-run", "--printshellcmds", "reports/digits/index.html")
        found = re.findall(r"acf (\w+ --(?:experiment|dataset) [\w-]+(?: --variant [\w-]+ --seed \d+)?)", planned)
        assert sorted(set(found)) == MEASUREMENTS
        project.output("snakemake", "--cores", "1", "--", metrics)
        assert project.metrics("resflow")["draws"] == 2


def test_dvc_trains_the_changed_variant_again_and_no_other(dvc: Project) -> None:
    with dvc.changed(RATE, 5e-3):
        planned = dvc.output("dvc", "repro", "--dry", "report@digits")
        assert re.findall(r"^> acf (train .*)$", planned, re.MULTILINE) == calls("train", "acf-l2")
    assert dvc.dvc() == []


@pytest.mark.slow  # two minutes; what runs again is planned above, and restored in tests/stages
def test_dvc_retrains_the_changed_variant_and_restores_it(dvc: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows what that changed, and live curves where the environment asks for them."""
    monkeypatch.setenv("ACF_LIVE", "tensorboard" if find_spec("tensorboard") else "")
    before = dvc.metrics("acf-l2")
    with dvc.changed(RATE, 5e-3):
        assert dvc.dvc() == ONE_VARIANT
        assert dvc.metrics("acf-l2")["bits_per_dim"] != before["bits_per_dim"]
        (change,) = json.loads(dvc.output("dvc", "metrics", "diff", "--json")).values()
        assert {key for key in change if key.endswith("bits_per_dim")} == {"digits.acf-l2.seed0.bits_per_dim"}
        table = dvc.output("dvc", "exp", "show", "--only-changed", r"--drop=.*/|.*(_se|seconds)$|Created")
        assert not {"fail", "WARN"} & set(re.findall("fail|WARN", table))
        assert re.findall(r"\S*\.(?:bits_per_dim|learning_rate)(?!\S)", table) == [
            "digits.acf-l2.seed0.bits_per_dim",
            RATE,
        ]
    live = sorted(path.parent.parent for path in (dvc.root / ".acf/live").rglob("events.*"))
    assert live == [dvc.root / ".acf/live/tensorboard/digits/acf-l2/seed0"] * bool(find_spec("tensorboard"))
    # DVC restores outputs that git tracks only where they are metrics or plots; `acf` restores these itself.
    assert dvc.dvc() == sorted([*calls("evaluate", "acf-l2"), "report --experiment digits"])
    assert dvc.metrics("acf-l2") == before


@pytest.mark.slow  # the test of changed settings above has the plan, under Snakemake
def test_dvc_evaluation_parameters_retrain_nothing(dvc: Project) -> None:
    with dvc.changed(DRAWS, 2):
        assert dvc.dvc() == MEASUREMENTS
        assert dvc.metrics("resflow")["draws"] == 2
    assert dvc.dvc() == MEASUREMENTS
    assert dvc.metrics("resflow")["draws"] == 1


@pytest.mark.slow  # the clone in tests/pipeline/test_snakemake.py has the same under both engines
def test_comments_in_the_code_do_not_train_again(dvc: Project) -> None:
    code = dvc.root / "src/acf/training/__init__.py"
    before = code.read_text()
    code.write_text(before + "# A comment.\n")
    try:
        assert dvc.dvc() == ["code"]
        assert dvc.dvc() == []
    finally:
        code.write_text(before)
    assert set(dvc.dvc()) <= {"code"}  # unless DVC has kept what `acf code` wrote before


@pytest.mark.slow
def test_two_experiments_on_one_data_set_prepare_it_once_by_dvc(dvc: Project) -> None:
    assert dvc.dvc("digits", "digits-wide") == sorted(WIDE)


def test_dvc_shows_metrics_and_curves_without_a_failure(dvc: Project) -> None:
    """Of the experiment that was built; two others never were."""
    said = {command: dvc.output("dvc", *command.split()) for command in ("metrics show", "metrics diff", "plots show")}
    assert not [text for text in said.values() if "fail" in text.lower() or "warn" in text.lower()]
    assert "digits.acf-l2.seed0.bits_per_dim" in said["metrics show"]
    page = dvc.text("dvc_plots/index.html")
    for words in ("Bits/dim while training", "training step", "training bits/dim", "validation bits/dim"):
        assert words in page
    assert set(re.findall('"variant": "(.*?)"', page)) == {"resflow", "acf-l2"}


@pytest.mark.slow  # a worker of DVC's queue, and four stages in a workspace of its own
def test_a_queued_experiment_measures_anew_and_trains_nothing(dvc: Project, tmp_path: Path) -> None:
    project = dvc.copy(tmp_path / "copy")
    try:
        project.output("dvc", "exp", "run", "--queue", "--name", "two-draws", "-S", f"+{DRAWS}=2", "report@digits")
        project.output("dvc", "queue", "start")
        end = time.monotonic() + 600
        while "Success" not in (status := project.output("dvc", "queue", "status")):
            assert "Failed" not in status, project.output("dvc", "queue", "logs", "two-draws")
            assert time.monotonic() < end, status
            time.sleep(2)
    finally:
        project.output("dvc", "queue", "stop", "--kill")
    ran = set(re.findall(r"^> acf (\w+)", project.output("dvc", "queue", "logs", "two-draws"), re.MULTILINE))
    assert ran == {"evaluate", "baselines", "report"}
    table = project.output("dvc", "exp", "show", "--only-changed", r"--drop=.*/|.*(_se|seconds)$|Created")
    assert "two-draws" in table
    assert "digits.acf-l2.seed0.bits_per_dim" in table
    assert "fail" not in table


def test_linked_data_and_runs_are_not_for_git(dvc: Project, tmp_path: Path) -> None:
    project = dvc.copy(tmp_path / "copy")
    for name in ("data", "models", "samples", ".acf"):
        (project.root / name).rename(tmp_path / name)
        (project.root / name).symlink_to(tmp_path / name)
    assert project.dvc() == []
    assert not {"data", "models", "samples", ".acf"} & set(project.output("git", "status", "--short").split())


def test_a_project_without_git_is_built(dvc: Project, tmp_path: Path) -> None:
    project = dvc.copy(tmp_path / "copy")
    shutil.rmtree(project.root / ".git")
    shutil.copy(ROOT / "Makefile", project.root)
    project.output("make", "--old-file=.venv/complete", "dvc-without-git")
    assert project.dvc() == []
