"""The real DVC: what runs again after a change, and what comes back without running; Snakemake after it."""

import shutil
from pathlib import Path

import pytest

from tests.pipeline.engines import DRAWS, EVERYTHING, MEASUREMENTS, ONE_VARIANT, RATE, WIDE, calls
from tests.pipeline.project import Project

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dvc(tmp_path_factory: pytest.TempPathFactory, server: str) -> Project:
    project = Project(tmp_path_factory.mktemp("dvc"), server=server)
    assert project.dvc() == sorted(["code", *EVERYTHING])
    return project


def test_dvc_second_run_does_nothing(dvc: Project) -> None:
    assert dvc.dvc() == []


def test_snakemake_notices_changed_settings_of_what_dvc_has_built(dvc: Project, tmp_path: Path) -> None:
    project = dvc.copy(tmp_path / "copy")
    assert project.snakemake() == []
    with project.changed(DRAWS, 2):
        assert project.snakemake() == MEASUREMENTS
        assert project.metrics("resflow")["draws"] == 2


def test_dvc_retrains_the_changed_variant_and_restores_it(dvc: Project) -> None:
    before = dvc.metrics("acf-l2")
    with dvc.changed(RATE, 5e-3):
        assert dvc.dvc() == ONE_VARIANT
        assert dvc.metrics("acf-l2")["bits_per_dim"] != before["bits_per_dim"]
    # DVC restores outputs that git tracks only where they are metrics or plots; `acf` restores these itself.
    assert dvc.dvc() == sorted([*calls("evaluate", "acf-l2"), "report --experiment digits"])
    assert dvc.metrics("acf-l2") == before


@pytest.mark.slow  # the test of changed settings above has the same under Snakemake
def test_dvc_evaluation_parameters_retrain_nothing(dvc: Project) -> None:
    with dvc.changed(DRAWS, 2):
        assert dvc.dvc() == MEASUREMENTS
        assert dvc.metrics("resflow")["draws"] == 2
    assert dvc.dvc() == MEASUREMENTS
    assert dvc.metrics("resflow")["draws"] == 1


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
    dvc.commit()
    assert "results/digits/resflow/seed0/metrics.json" in dvc.output("dvc", "metrics", "show")
    curve = "models/digits/resflow/seed0/history.csv"
    for command in (["metrics", "diff"], ["plots", "show"], ["plots", "show", curve, "-x", "step"]):
        assert "fail" not in dvc.output("dvc", *command)
    assert "train_bits_per_dim" in dvc.text("dvc_plots/index.html")


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
