"""The real Snakemake: what runs again after a change, and what comes back without running; DVC after it."""

from pathlib import Path

import pytest

from tests.pipeline.engines import DRAWS, EVERYTHING, MEASUREMENTS, ONE_VARIANT, RATE, WIDE
from tests.pipeline.project import Project


@pytest.fixture(scope="module")
def snakemake(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("snakemake"))
    assert project.snakemake() == EVERYTHING
    return project


def test_dvc_restores_what_snakemake_has_computed(snakemake: Project, tmp_path: Path) -> None:
    project = snakemake.copy(tmp_path / "copy")
    model = project.root / "models/digits/acf-l2/seed0/model.safetensors"
    before = model.read_bytes()
    assert "restored model.safetensors" in project.output("dvc", "repro", "train-digits@acf-l2-0")
    assert model.read_bytes() == before


def test_snakemake_second_run_does_nothing(snakemake: Project) -> None:
    assert snakemake.snakemake() == []


def test_snakemake_reports_pictures_and_figures_with_captions(snakemake: Project) -> None:
    files = list(snakemake.snakemake_report().rglob("*"))
    names = {path.name for path in files}
    assert {"samples.png", "reconstructions.png", "ranking.png"} <= names
    text = "".join(path.read_text() for path in files if path.suffix in (".js", ".html"))
    assert "Figures of the experiment digits" in text
    assert "Pictures of variant acf-l2, seed 0, in the experiment" in text


def test_snakemake_retrains_the_changed_variant_and_restores_it(snakemake: Project) -> None:
    before = snakemake.metrics("acf-l2")
    log = "logs/train/digits/acf-l2/seed0.log"
    with snakemake.changed(RATE, 5e-3):
        assert snakemake.snakemake() == ONE_VARIANT
        assert "step 4/4" in snakemake.text(log)
        assert snakemake.metrics("acf-l2")["bits_per_dim"] != before["bits_per_dim"]
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
def test_engines_measure_the_same(snakemake: Project, tmp_path: Path) -> None:
    dvc = Project(tmp_path / "dvc")
    assert dvc.dvc() == EVERYTHING
    for variant in ("resflow", "acf-l2"):
        assert dvc.metrics(variant) == snakemake.metrics(variant)


@pytest.mark.slow
def test_two_experiments_on_one_data_set_prepare_it_once_by_snakemake(snakemake: Project) -> None:
    assert snakemake.snakemake("digits", "digits-wide") == sorted(WIDE)
