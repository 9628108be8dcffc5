"""The real Snakemake: what runs again after a change, and what comes back without running; DVC after it."""

import os
import shutil
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.pipeline.engines import DRAWS, EVERYTHING, MEASUREMENTS, ONE_VARIANT, RATE, WIDE, calls
from tests.pipeline.project import Project

UP_TO_DATE = "Data and pipelines are up to date.\n"


@pytest.fixture(scope="module")
def snakemake(tmp_path_factory: pytest.TempPathFactory, server: str) -> Project:
    project = Project(tmp_path_factory.mktemp("snakemake"), server=server)
    assert project.snakemake() == EVERYTHING
    return project


def test_dvc_takes_over_what_snakemake_has_built_and_shares_it_with_a_clone(snakemake: Project, tmp_path: Path) -> None:
    """And neither engine has anything to do there, until the mathematics changes."""
    project = snakemake.copy(tmp_path / "moved")
    project.output("dvc", "remote", "add", "--default", "shared", str(tmp_path / "remote"))
    assert f"recorded {1 + len(EVERYTHING)} stages" in project.output("acf", "sync")
    assert project.output("dvc", "status", "--with-deps", "report@digits") == UP_TO_DATE
    project.output("dvc", "push", "--with-deps", "report@digits")
    project.commit()
    clone = project.clone(tmp_path / "clone")
    clone.output("dvc", "pull", "--with-deps", "report@digits")
    assert clone.snakemake() == []
    assert clone.output("dvc", "status", "--with-deps", "report@digits") == UP_TO_DATE
    clone.edit("src/acf/training/trainer.py", '"""', '"""A comment. ')
    assert clone.snakemake() == []
    assert clone.dvc() == ["code"]
    clone.edit("src/acf/training/optimiser.py", "\n\n\n", "\n\nEDITED = 1\n\n\n")
    planned = clone.output("snakemake", "--dry-run", "reports/digits/index.html")
    assert all(f"rule {stage}:" in planned for stage in ("train", "evaluate", "sample", "report"))
    assert "rule prepare:" not in planned


def test_a_stage_by_hand_keeps_what_another_machine_has_computed(snakemake: Project, tmp_path: Path) -> None:
    project = snakemake.copy(tmp_path / "copy")
    shutil.rmtree(project.root / ".acf")
    assert "is of this recipe already" in project.output("acf", *calls("train", "acf-l2")[0].split())
    (project.root / "models/digits/acf-l2/seed0/history.csv").unlink()
    assert "restored" in project.output("acf", *calls("train", "acf-l2")[0].split())


@pytest.mark.slow
def test_one_engine_runs_at_a_time(snakemake: Project, tmp_path: Path) -> None:
    project = snakemake.copy(tmp_path / "copy")
    acf = project.root / "bin/acf"
    ready = acf.read_text()
    acf.write_text("#!/bin/sh\ntouch at-work; exec sleep 60\n")
    (project.root / "reports/digits/index.html").unlink()
    engines = {
        "dvc": ("dvc", "repro", "report@digits"),
        "snakemake": ("snakemake", "--cores", "1", "reports/digits/index.html"),
    }
    for first, second in (("dvc", "snakemake"), ("snakemake", "dvc")):
        at_work = project.start(*engines[first])
        try:
            project.wait_for("at-work")
            said = project.refused(*engines[second])
            assert first in said
            assert str(at_work.pid) in said
            assert "wait until it ends, or stop it" in said
        finally:
            os.killpg(at_work.pid, signal.SIGKILL)
            at_work.wait()
            (project.root / "at-work").unlink()
    acf.write_text(ready)
    project.output("snakemake", "--unlock")
    assert project.snakemake() == ["report --experiment digits"]


@pytest.mark.slow  # the clone above has nothing to do either
def test_snakemake_second_run_does_nothing(snakemake: Project) -> None:
    assert snakemake.snakemake() == []


def test_snakemake_reports_pictures_and_figures_with_captions(snakemake: Project) -> None:
    files = list(snakemake.snakemake_report().rglob("*"))
    names = {path.name for path in files}
    assert {"samples.png", "reconstructions.png", "ranking.png", "table.csv"} <= names
    text = "".join(path.read_text() for path in files if path.suffix in (".js", ".html"))
    assert "Figures of the experiment digits" in text
    assert "Comparison of the models of the experiment digits" in text
    assert all(f'"picture": "{name}"' in text for name in ("samples", "reconstructions"))
    assert "Pictures of variant acf-l2, seed 0, in the experiment" in text


@pytest.mark.slow  # tests/pipeline/test_dvc.py has the same for DVC
def test_snakemake_retrains_the_changed_variant_and_restores_it(
    snakemake: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows live curves where the environment asks for them."""
    monkeypatch.setenv("ACF_LIVE", "tensorboard" if find_spec("tensorboard") else "")
    before = snakemake.metrics("acf-l2")
    log = "logs/train/digits/acf-l2/seed0.log"
    with snakemake.changed(RATE, 5e-3):
        assert snakemake.snakemake() == ONE_VARIANT
        assert "step 4/4" in snakemake.text(log)
        assert snakemake.metrics("acf-l2")["bits_per_dim"] != before["bits_per_dim"]
    live = sorted(path.parent.parent for path in (snakemake.root / ".acf/live").rglob("events.*"))
    assert live == [snakemake.root / ".acf/live/tensorboard/digits/acf-l2/seed0"] * bool(find_spec("tensorboard"))
    assert snakemake.snakemake() == ONE_VARIANT
    assert "restored model.safetensors" in snakemake.text(log)
    assert "step" not in snakemake.text(log)
    assert snakemake.metrics("acf-l2") == before


@pytest.mark.slow
def test_snakemake_evaluation_parameters_retrain_nothing(snakemake: Project) -> None:
    with snakemake.changed(DRAWS, 2):
        assert snakemake.snakemake() == MEASUREMENTS
        assert snakemake.metrics("resflow")["draws"] == 2
    snakemake.snakemake()


@pytest.mark.slow
def test_engines_measure_the_same(snakemake: Project, server: str, tmp_path: Path) -> None:
    dvc = Project(tmp_path / "dvc", server=server)
    assert dvc.dvc() == sorted(["code", *EVERYTHING])
    for variant in ("resflow", "acf-l2"):
        assert dvc.metrics(variant) == snakemake.metrics(variant)


@pytest.mark.slow
def test_two_experiments_on_one_data_set_prepare_it_once_by_snakemake(snakemake: Project) -> None:
    assert snakemake.snakemake("digits", "digits-wide") == sorted(WIDE)


def test_another_experiment_is_planned_beside_one_that_is_built(snakemake: Project, tmp_path: Path) -> None:
    project = snakemake.copy(tmp_path / "copy")
    reports = [f"reports/{experiment}/index.html" for experiment in ("digits", "digits-wide")]
    planned = project.output("snakemake", "--dry-run", "--cores", "2", *reports)
    assert "digits-wide" in planned
