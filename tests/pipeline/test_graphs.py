import copy
import json
import shutil
from functools import reduce
from pathlib import Path

import pytest
import yaml

from acf.data import verify
from acf.data.prepared.labels import Labels, labels_hash
from acf.flows.build import build
from acf.flows.storage import save
from acf.registry import ANALYSES
from acf.runs import CODE
from acf.runs.recipe import all_code_hashes
from acf.settings.params import Params, Run
from acf.stages.current import Current, Task
from acf.stages.engines import FOLDERS
from acf.stages.graph import check_graph, write_graph
from acf.stages.prepare import prepare
from acf.stages.project import Project as AcfProject
from tests.pipeline.graphs import Stage, dvc_graph, snakemake_graph
from tests.pipeline.project import STUDY, Project
from tests.two_cores import SMALL

ROOT = Path(__file__).parents[2]
DIGITS_L2 = tuple(
    f"acf {stage} --experiment digits " + "--variant acf-l2 --seed 0 " * (stage != "baselines")
    for stage in ("train", "evaluate", "sample", *ANALYSES, "baselines")
)
MEASURING = {"evaluate", "baselines", *ANALYSES}


EXPERIMENTS = ("digits", "digits-hybrid", "patches", "cifar10", "svhn")
"""Of params.yaml: with labels and without, of small and of large maps, with other data sets and without."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This project with some of its experiments, whose graph takes the engines a quarter of the time."""
    folder = Project(tmp_path_factory.mktemp("some")).root
    study = yaml.safe_load((ROOT / "params.yaml").read_text())
    study["experiments"] = {name: study["experiments"][name] for name in EXPERIMENTS}
    used = {experiment["dataset"] for experiment in study["experiments"].values()}
    study["datasets"] = {name: settings for name, settings in study["datasets"].items() if name in used}
    (folder / "params.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    write_graph(folder)
    return folder


@pytest.fixture(scope="module")
def dvc(root: Path) -> dict[str, Stage]:
    return dvc_graph(root)


@pytest.fixture(scope="module")
def snakemake(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stage]:
    return snakemake_graph(root, tmp_path_factory.mktemp("snakemake"))


@pytest.mark.slow
def test_engines_call_the_same_commands_in_all_experiments(tmp_path: Path) -> None:
    assert set(dvc_graph(ROOT)) == {"acf code", *snakemake_graph(ROOT, tmp_path)}


def test_engines_call_the_same_commands(dvc: dict[str, Stage], snakemake: dict[str, Stage]) -> None:
    assert set(dvc) == {"acf code", *snakemake}


def test_engines_read_and_write_the_same(dvc: dict[str, Stage], snakemake: dict[str, Stage]) -> None:
    for command, stage in snakemake.items():
        assert (dvc[command].files, dvc[command].outputs) == (stage.files, stage.outputs), command


@pytest.fixture(scope="module")
def code() -> dict[str, dict[str, str]]:
    return all_code_hashes()


def test_dvc_sees_the_code_of_the_recipe(dvc: dict[str, Stage], code: dict[str, dict[str, str]]) -> None:
    assert dvc["acf code"].outputs == {f"code/{stage}.json" for stage in CODE}
    assert {f"src/acf/{name}" for hashes in code.values() for name in hashes} <= dvc["acf code"].code
    for command, stage in dvc.items():
        if command != "acf code":
            assert stage.code == {f"code/{command.split()[1]}.json"}, command


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with data and, in place of a trained model, an untrained one that says it is of the study."""
    root = tmp_path_factory.mktemp("begun")
    (root / "params.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    prepare("digits", root / "data")
    project, run = AcfProject(root), Run("digits", "acf-l2", 0)
    model = project.params.resolve(run.experiment, run.variant).model.model_dump()
    record = {**run._asdict(), "dataset": "digits", "train_seconds": 1.0, "train_steps": 4}
    save(build({**model, "shape": (1, 8, 8), "levels": 17}), project.model(run), record)
    return root


@pytest.mark.parametrize(
    ("key", "value", "stages"),
    [
        ("datasets.digits.levels", 8, {"train", "baselines"}),
        ("defaults.model.idim", 12, {"train"}),
        ("defaults.training.steps", 5, {"train"}),
        ("defaults.evaluation.draws", 2, MEASURING),
        ("defaults.sampling.samples", 5, {"sample"}),
        ("defaults.analyses.interpolation.steps", 5, {"interpolation"}),
        ("defaults.analyses.noise.images", 5, {"noise"}),
        ("defaults.analyses.frechet.samples", 5, {"frechet"}),
        ("variants.acf-l2.model.attention.kind", "dot", {"train"}),
        ("experiments.digits.model.idim", 12, {"train"}),
        ("experiments.digits.training.steps", 5, {"train"}),
        ("experiments.digits.evaluation.draws", 2, MEASURING),
        ("experiments.digits.sampling.samples", 5, {"sample"}),
        ("experiments.digits.variants.acf-l2.training.learning_rate", 5e-3, {"train"}),
    ],
)
def test_a_setting_counts_for_the_same_stages_in_both_engines(
    dvc: dict[str, Stage],
    code: dict[str, dict[str, str]],
    begun: Path,
    tmp_path: Path,
    key: str,
    value: object,
    stages: set[str],
) -> None:
    """DVC watches keys of params.yaml, and Snakemake recipes of resolved settings."""
    study = copy.deepcopy(STUDY)
    *parents, last = key.split(".")
    reduce(lambda section, name: section[name], parents, study)[last] = value
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    for name in ("data", "models"):
        (tmp_path / name).symlink_to(begun / name)
    of_run = ("train", "evaluate", "sample", *ANALYSES)
    names = {stage: ("digits", "acf-l2", "0") for stage in of_run} | {"baselines": ("digits",)}
    before, after = (Current(AcfProject(root), code) for root in (begun, tmp_path))
    tasks = [Task(stage, task) for stage, task in names.items()]
    assert None not in [before.expected(task) for task in tasks]
    assert {task.stage for task in tasks if before.expected(task) != after.expected(task)} == stages
    watched = {c.split()[1]: json.loads(s.parameters) for c, s in dvc.items() if f"{c} ".startswith(DIGITS_L2)}
    assert {s for s, keys in watched.items() if any(f"{key}.".startswith(f"{k}.") for k in keys)} & set(names) == stages


def test_an_override_for_one_analysis_reaches_it(dvc: dict[str, Stage]) -> None:
    """DVC watches the overrides for all analyses as one key, so that it asks `acf` for more than has changed."""
    for command, stage in dvc.items():
        if command.split()[1] in ANALYSES:
            experiment = command.split()[3]
            assert f'"experiments.{experiment}.analyses"' in stage.parameters


def test_every_run_of_params_yaml_is_built(root: Path, dvc: dict[str, Stage]) -> None:
    study = Params(root / "params.yaml")
    commands = {"acf code", "acf index"}
    commands |= {f"acf prepare --dataset {study.prepared(name)}" for name in study.experiments}
    commands |= {f"acf {s} --experiment {name}" for s in ("baselines", "report") for name in study.experiments}
    commands |= {f"acf {stage} {run.options}" for stage in ("train", "evaluate", "sample") for run in study.runs()}
    commands |= {f"acf {a} {run.options}" for name in study.experiments for a, run in study.analysed(name)}
    assert set(dvc) == commands


@pytest.mark.slow
def test_snakemake_has_the_same_graph_in_another_working_folder(
    root: Path, snakemake: dict[str, Stage], tmp_path: Path
) -> None:
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    shutil.copy(root / "params.yaml", directory)
    assert snakemake_graph(root, tmp_path, directory) == snakemake


def test_dvc_yaml_is_the_graph_of_params_yaml() -> None:
    check_graph(ROOT)


def test_index_waits_for_every_report(dvc: dict[str, Stage]) -> None:
    reports = {out for command, stage in dvc.items() if command.startswith("acf report") for out in stage.outputs}
    assert {out for out in reports if out.startswith("reports/")} <= dvc["acf index"].files


def test_an_engine_at_work_holds_all_folders_with_outputs(dvc: dict[str, Stage]) -> None:
    written = {out for stage in dvc.values() for out in stage.outputs}
    assert {out.partition("/")[0] for out in written} == set(FOLDERS)


def test_jobs_on_small_maps_take_a_core_each_and_large_ones_several(root: Path, snakemake: dict[str, Stage]) -> None:
    """So `snakemake --cores 2` trains two models at a time in the experiments that fit two cores."""
    runs = Params(root / "params.yaml").runs()
    for stage in ("train", "evaluate", "sample"):
        threads = {run: snakemake[f"acf {stage} {run.options}"].threads for run in runs}
        assert {number for run, number in threads.items() if run.experiment in SMALL} == {1}
        assert all(2 <= number <= 4 for run, number in threads.items() if run.experiment not in SMALL)
    assert snakemake["acf baselines --experiment digits"].threads == 1
    assert snakemake["acf baselines --experiment cifar10"].threads > 1


def test_no_parameter_of_evaluation_reaches_training(dvc: dict[str, Stage]) -> None:
    for command, stage in dvc.items():
        if command.startswith("acf train"):
            assert "evaluation" not in stage.parameters
            assert "sampling" not in stage.parameters


def test_labels_count_for_the_analyses_that_read_them_and_for_nothing_else(
    dvc: dict[str, Stage], code: dict[str, dict[str, str]], begun: Path, tmp_path: Path
) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(STUDY, sort_keys=False))
    (tmp_path / "models").symlink_to(begun / "models")
    shutil.copytree(begun / "data", tmp_path / "data")
    folder = tmp_path / "data/digits"
    labels = json.loads((folder / "labels.json").read_text())
    labels["test"][0] = (labels["test"][0] + 1) % 10
    content = Labels.model_validate(labels).content()
    (folder / "labels.json").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"labels": labels_hash(content)}))
    verify("digits", tmp_path / "data")
    before, after = (Current(AcfProject(root), code) for root in (begun, tmp_path))
    of_run = [Task(stage, ("digits", "acf-l2", "0")) for stage in ("train", "evaluate", "sample", *ANALYSES)]
    tasks = [*of_run, Task("baselines", ("digits",))]
    assert {task.stage for task in tasks if before.expected(task) != after.expected(task)} == {"attributes", "noise"}
    reading = [command for command, stage in dvc.items() if "data/digits/labels.json" in stage.files]
    assert {command.split()[1] for command in reading} == {"attributes", "noise", "report", "train", "evaluate"}
    labelled = {command.split()[3] for command in reading if command.split()[1] in ("train", "evaluate")}
    assert labelled == {"digits-hybrid"}
