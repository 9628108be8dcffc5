import shutil
from pathlib import Path

import pytest

from acf.runs import CODE, code_files
from acf.settings.params import Params
from acf.stages.graph import check_graph
from tests.pipeline.graphs import Stage, dvc_graph, snakemake_graph

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dvc() -> dict[str, Stage]:
    return dvc_graph(ROOT)


@pytest.fixture(scope="module")
def snakemake(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stage]:
    return snakemake_graph(ROOT, tmp_path_factory.mktemp("snakemake"))


def test_engines_call_the_same_commands(dvc: dict[str, Stage], snakemake: dict[str, Stage]) -> None:
    assert set(dvc) == set(snakemake)


@pytest.mark.parametrize("field", ["parameters", "outputs"])
def test_engines_declare_the_same(dvc: dict[str, Stage], snakemake: dict[str, Stage], field: str) -> None:
    for command, stage in dvc.items():
        assert getattr(stage, field) == getattr(snakemake[command], field), command


def test_engines_read_the_same(dvc: dict[str, Stage], snakemake: dict[str, Stage]) -> None:
    """DVC knows the code by its folders, and Snakemake by the files in them that a stage imports."""
    imported = {stage: {f"src/acf/{name}" for name in code_files(stage)} for stage in CODE}
    for command, stage in dvc.items():
        assert stage.files == snakemake[command].files, command
        assert snakemake[command].code == imported[command.split()[1]] <= stage.code, command


def test_every_run_of_params_yaml_is_built(dvc: dict[str, Stage]) -> None:
    study = Params(ROOT / "params.yaml")
    commands = {"acf index"}
    commands |= {f"acf prepare --dataset {study.dataset(name)}" for name in study.experiments}
    commands |= {f"acf {s} --experiment {name}" for s in ("baselines", "report") for name in study.experiments}
    commands |= {f"acf {stage} {run.options}" for stage in ("train", "evaluate", "sample") for run in study.runs()}
    assert set(dvc) == commands


def test_code_folders_are_those_of_the_recipe(dvc: dict[str, Stage]) -> None:
    for command, stage in dvc.items():
        files = stage.code
        folders = [
            f"src/acf/{place}" if place.endswith(".py") else f"src/acf/{place}/" for place in CODE[command.split()[1]]
        ]
        assert all(any(path.startswith(folder) for folder in folders) for path in files), command
        assert all(any(path.startswith(folder) for path in files) for folder in folders), command


def test_snakemake_knows_the_code_in_another_working_folder(snakemake: dict[str, Stage], tmp_path: Path) -> None:
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    shutil.copy(ROOT / "params.yaml", directory)
    there = snakemake_graph(ROOT, tmp_path, directory)
    for command, stage in snakemake.items():
        assert {path.removeprefix(f"{ROOT}/") for path in there[command].files} == stage.files | stage.code, command


def test_dvc_yaml_is_the_graph_of_params_yaml() -> None:
    check_graph(ROOT)


def test_index_waits_for_every_report(dvc: dict[str, Stage]) -> None:
    reports = {out for command, stage in dvc.items() if command.startswith("acf report") for out in stage.outputs}
    assert reports <= dvc["acf index"].files


def test_jobs_on_digits_take_a_core_each_and_large_ones_several(snakemake: dict[str, Stage]) -> None:
    """So `snakemake --cores 2` trains two models of the demo at a time."""
    runs = Params(ROOT / "params.yaml").runs()
    for stage in ("train", "evaluate", "sample"):
        threads = {run: snakemake[f"acf {stage} {run.options}"].threads for run in runs}
        assert {number for run, number in threads.items() if run.experiment.startswith("digits")} == {1}
        assert all(2 <= number <= 4 for run, number in threads.items() if not run.experiment.startswith("digits"))
    assert snakemake["acf baselines --experiment digits"].threads == 1
    assert snakemake["acf baselines --experiment cifar10"].threads > 1


def test_no_parameter_of_evaluation_reaches_training(dvc: dict[str, Stage]) -> None:
    for command, stage in dvc.items():
        if command.startswith("acf train"):
            assert "evaluation" not in stage.parameters
            assert "sampling" not in stage.parameters
