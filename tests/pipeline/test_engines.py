"""The real DVC and Snakemake: what runs again after a change, and what comes back without running."""

import shutil
from pathlib import Path

import pytest

from tests.pipeline.project import Project

ROOT = Path(__file__).parents[2]
DATA = ["baselines --experiment digits", "prepare --dataset digits", "report --experiment digits"]
RATE = "experiments.digits.variants.acf-l2.training.learning_rate"
DRAWS = "experiments.digits.evaluation.draws"


def calls(stage: str, *variants: str) -> list[str]:
    return [f"{stage} --experiment digits --variant {variant} --seed 0" for variant in variants]


EVERYTHING = sorted(DATA + [c for stage in ("train", "evaluate", "sample") for c in calls(stage, "acf-l2", "resflow")])
ONE_VARIANT = sorted(
    [
        "report --experiment digits",
        *(c for stage in ("train", "evaluate", "sample") for c in calls(stage, "acf-l2")),
    ]
)
MEASUREMENTS = sorted(
    ["baselines --experiment digits", "report --experiment digits", *calls("evaluate", "acf-l2", "resflow")]
)


@pytest.fixture(scope="module")
def dvc(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("dvc"))
    assert project.dvc() == EVERYTHING
    return project


@pytest.fixture(scope="module")
def snakemake(dvc: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("snakemake"), source=dvc.root)
    assert project.snakemake() == EVERYTHING
    return project


def test_dvc_second_run_does_nothing(dvc: Project) -> None:
    assert dvc.dvc() == []


def test_snakemake_notices_changed_settings_of_what_dvc_has_built(dvc: Project, tmp_path: Path) -> None:
    project = dvc.copy(tmp_path / "copy")
    assert project.snakemake() == []
    shutil.rmtree(project.root / ".snakemake")
    shutil.rmtree(project.root / ".acf/settings")
    with project.changed(DRAWS, 2):
        assert set(MEASUREMENTS) <= set(project.snakemake())
        assert project.metrics("resflow")["draws"] == 2
        assert "restored model.safetensors" in project.text("logs/train/digits/resflow/seed0.log")


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


def test_dvc_retrains_the_changed_variant_and_restores_it(dvc: Project) -> None:
    before = dvc.metrics("acf-l2")
    with dvc.changed(RATE, 5e-3):
        assert dvc.dvc() == ONE_VARIANT
        assert dvc.metrics("acf-l2")["bits_per_dim"] != before["bits_per_dim"]
    # DVC restores outputs that git tracks only where they are metrics or plots; `acf` restores these itself.
    assert dvc.dvc() == sorted([*calls("evaluate", "acf-l2"), "report --experiment digits"])
    assert dvc.metrics("acf-l2") == before


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


def test_dvc_evaluation_parameters_retrain_nothing(dvc: Project) -> None:
    with dvc.changed(DRAWS, 2):
        assert dvc.dvc() == MEASUREMENTS
        assert dvc.metrics("resflow")["draws"] == 2
    assert dvc.dvc() == MEASUREMENTS
    assert dvc.metrics("resflow")["draws"] == 1


def test_snakemake_evaluation_parameters_retrain_nothing(snakemake: Project) -> None:
    with snakemake.changed(DRAWS, 2):
        assert snakemake.snakemake() == MEASUREMENTS
        assert snakemake.metrics("resflow")["draws"] == 2
    snakemake.snakemake()


def test_comments_in_the_code_do_not_train_again(dvc: Project) -> None:
    code = dvc.root / "src/acf/training/__init__.py"
    before = code.read_text()
    model = (dvc.root / "models/digits/resflow/seed0/model.safetensors").read_bytes()
    code.write_text(before + "# A comment.\n")
    try:
        assert dvc.dvc() == calls("train", "acf-l2", "resflow")
        assert (dvc.root / "models/digits/resflow/seed0/model.safetensors").read_bytes() == model
        assert dvc.dvc() == []
    finally:
        code.write_text(before)
    assert dvc.dvc() == []


@pytest.mark.parametrize("variant", ["resflow", "acf-l2"])
def test_engines_measure_the_same(dvc: Project, snakemake: Project, variant: str) -> None:
    assert dvc.metrics(variant) == snakemake.metrics(variant)


WIDE = [
    "baselines --experiment digits-wide",
    *(f"{stage} --experiment digits-wide --variant resflow --seed 0" for stage in ("evaluate", "sample", "train")),
    "report --experiment digits-wide",
]


def test_two_experiments_on_one_data_set_prepare_it_once_by_dvc(dvc: Project) -> None:
    assert dvc.dvc("digits", "digits-wide") == sorted(WIDE)


def test_two_experiments_on_one_data_set_prepare_it_once_by_snakemake(snakemake: Project) -> None:
    assert snakemake.snakemake("digits", "digits-wide") == sorted(WIDE)


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
