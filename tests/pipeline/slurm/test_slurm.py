"""The profile `slurm` on a real SLURM: what jobs ask for, and trainings that are cancelled or near their time limit."""

import csv
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.project import Project
from tests.pipeline.slurm import cluster
from tests.pipeline.slurm.study import PATIENCE, ClusterStudy

pytestmark = pytest.mark.slurm

VARIANTS = ("resflow", "acf-l2")
STEPS, STOP_AT = 300, 20
MODEL = "models/digits/{}/seed0/{}"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A running cluster: the variables that name it."""
    if reason := cluster.obstacle():
        pytest.skip(reason)
    try:
        cluster.install()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"SLURM cannot be installed: {error}")
    folder = tmp_path_factory.mktemp("cluster")
    try:
        yield cluster.start(folder)
    finally:
        cluster.stop(folder)


@pytest.fixture(scope="module")
def built(slurm: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> ClusterStudy:
    """A study built on the cluster, one training cancelled and another warned by SLURM of its time limit."""
    study = ClusterStudy(_project(tmp_path_factory.mktemp("study")), slurm)
    snakemake = study.snakemake("reports/digits/index.html")
    try:
        study.freeze_trainings(VARIANTS, STOP_AT)
        cancelled, near_its_limit = (_job_of(study, variant) for variant in VARIANTS)
        # SLURM sends SIGCONT before each of its signals, so the trainings go on without being told to.
        study.command("scancel", cancelled)
        # Less time is left than the warning that the profile asks for. SLURM counts limits in minutes and looks at them
        # every half minute.
        study.set_minutes_left(near_its_limit)
        for variant, name in zip(VARIANTS, ("SIGTERM", "SIGUSR1"), strict=True):
            study.until(lambda log=study.log(variant), name=name: f"stopped by {name}" in log.read_text())
        assert snakemake.wait(PATIENCE) == 0, study.output.read_text()[-5000:]
    finally:
        if snakemake.poll() is None:
            snakemake.terminate()
            snakemake.wait(PATIENCE)
    return study


@pytest.fixture(scope="module")
def undisturbed(slurm: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same study, built by hand on this machine."""
    study = ClusterStudy(_project(tmp_path_factory.mktemp("undisturbed")), slurm)
    study.command("acf", "prepare", "--dataset", "digits")
    for variant in VARIANTS:
        for stage in ("train", "evaluate"):
            study.command("acf", stage, "--experiment", "digits", "--variant", variant)
    return study.project


def _project(root: Path) -> Project:
    project = Project(root)
    training = {"steps": STEPS, "validate_every": STOP_AT}
    for key, value in training.items():
        project.set(f"defaults.training.{key}", value)
    return project


def test_jobs_have_what_the_profile_asks_for(built: ClusterStudy) -> None:
    train = built.jobs("train")[-1]
    assert (train["TimeLimit"], train["TresPerJob"], train["NumCPUs"]) == ("3-00:00:00", "gres:gpu:1", "1")
    assert "mem=8000M" in train["TRES"]
    for rule in ("evaluate", "sample"):
        for job in built.jobs(rule):
            assert (job["TimeLimit"], job["TresPerJob"]) == ("02:00:00", "gres:gpu:1")
            assert "mem=4000M" in job["TRES"]
    for rule in ("prepare", "baselines"):
        assert all("TresPerJob" not in job for job in built.jobs(rule))
    assert all(job["Requeue"] == "1" for job in built.jobs("train"))


def test_disturbed_trainings_were_submitted_again(built: ClusterStudy) -> None:
    states = {
        variant: [job["JobState"] for job in built.jobs("train") if variant in job["Comment"]] for variant in VARIANTS
    }
    assert states == {"resflow": ["CANCELLED", "COMPLETED"], "acf-l2": ["FAILED", "COMPLETED"]}
    assert {job["JobState"] for rule in ("evaluate", "sample", "baselines") for job in built.jobs(rule)} == {
        "COMPLETED"
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_disturbed_training_goes_on_where_it_was(built: ClusterStudy, variant: str) -> None:
    log = built.project.text(f"logs/train/digits/{variant}/seed0.log")
    assert "resumed after step" in log
    assert f"step {STOP_AT}/" not in log
    assert f"step {STEPS}/" in log


@pytest.mark.parametrize("variant", VARIANTS)
def test_results_equal_those_of_an_undisturbed_run(built: ClusterStudy, undisturbed: Project, variant: str) -> None:
    name = MODEL.format(variant, "model.safetensors")
    assert (built.project.root / name).read_bytes() == (undisturbed.root / name).read_bytes()
    assert _history(built.project, variant) == _history(undisturbed, variant)
    assert built.project.metrics(variant) == undisturbed.metrics(variant)


def test_a_node_that_grants_a_gpu_without_cuda_computes_on_the_cpu(built: ClusterStudy) -> None:
    assert '"device": "cpu' in built.project.text("results/digits/resflow/seed0/metrics.json")


def test_tasks_on_two_nodes_train_one_model(slurm: dict[str, str], undisturbed: Project, tmp_path: Path) -> None:
    histories = []
    for name, start in (("alone", []), ("nodes", ["srun", "-N2", "--ntasks-per-node=1", "--gpus-per-node=1", "-t5"])):
        study = ClusterStudy(Project(tmp_path / name), slurm)
        # Names of simulated nodes cannot be resolved; those of real ones need no such variable.
        study.environment["MASTER_ADDR"] = "127.0.0.1"
        shutil.copytree(undisturbed.root / "data", study.project.root / "data")
        printed = study.command(*start, "acf", "train", "--experiment", "digits", "--variant", "resflow")
        histories.append([float(row["train_bits_per_dim"]) for row in _history(study.project, "resflow")])
    assert "on 2 x cpu" in printed
    assert histories[0] == pytest.approx(histories[1], rel=1e-4)


def _job_of(study: ClusterStudy, variant: str) -> str:
    return next(job["JobId"] for job in study.jobs("train") if variant in job["Comment"])


def _history(project: Project, variant: str) -> list[dict[str, str]]:
    rows = csv.DictReader(project.text(MODEL.format(variant, "history.csv")).splitlines())
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
