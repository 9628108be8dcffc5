"""Flows trained for labels, from the prepared data to the report, with real files."""

import csv
import json
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import yaml

import acf
from acf.data import read_manifest
from acf.data.prepared.labels import Labels, labels_hash
from acf.errors import ConfigError, DataError
from acf.flows.classifying import ClassifyingFlow
from acf.flows.record import read_record
from acf.reporting.comparison import read_comparison
from acf.settings.params import Run
from acf.stages.baselines import baselines
from acf.stages.evaluate import computation as evaluation
from acf.stages.evaluate import evaluate
from acf.stages.project import Project
from acf.stages.report import report
from acf.stages.train import computation as training
from acf.stages.train import train

Study = Callable[..., Path]
TASKS = {"resflow": "density", "acf-l2": "hybrid", "acf-dot": "classification"}
SHORT = {"steps": 4, "validate_every": 2}


def with_tasks(root: Path) -> Path:
    """Give each variant its task."""
    path = root / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["experiments"]["digits"]["variants"] = {
        variant: {"training": {"task": {"kind": task}}} for variant, task in TASKS.items()
    }
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    return root


def test_labels_reach_models_results_and_report(study: Study) -> None:
    root = with_tasks(study(training=SHORT))
    project = Project(root)
    for variant, task in TASKS.items():
        train("digits", variant, 0, "cpu", root)
        evaluate("digits", variant, 0, "cpu", root)
        run = Run("digits", variant, 0)
        model = project.model(run)
        assert read_record(model)["training"]["task"]["kind"] == task
        flow = acf.load(model)
        assert isinstance(flow, ClassifyingFlow) == (task != "density")
        assert flow.config.classes == (None if task == "density" else 10)
        with (model / "history.csv").open() as file:
            last = list(csv.DictReader(file))[-1]
        assert (last["validation_bits_per_dim"] == "") == (task == "classification")
        assert (last["validation_accuracy"] == "") == (task == "density")
        metrics = json.loads(project.metrics(run).read_text())
        with project.images(run).open() as file:
            images = list(csv.DictReader(file))
        if task == "density":
            assert "classification" not in metrics
            assert "correct" not in images[0]
        else:
            found = metrics["classification"]
            assert sum(bin_["images"] for bin_ in found["bins"]) == 24
            assert found["accuracy"] == pytest.approx(np.mean([float(row["correct"]) for row in images]))
            assert found["cross_entropy"] == pytest.approx(-np.mean([float(row["label_log_prob"]) for row in images]))
        labels = {"labels"} if task != "density" else set()
        assert training(project, run).inputs.keys() == {"train"} | labels
        assert evaluation(project, run).inputs.keys() - {"weights", "training"} == {"test"} | labels
    baselines("digits", root)
    report("digits", root)
    page = unescape((project.report("digits") / "index.html").read_text())
    assert 'id="labels"' in page
    assert "reliability" in page
    assert "acf-dot: trained for labels alone" in page
    table = read_comparison(project.report("digits") / "table.csv", "digits").set_index("row")
    assert table["accuracy"].notna().to_dict() == {
        name: TASKS.get(name, "density") != "density" for name in table.index
    }
    assert table["gain"].notna()["acf-l2"]
    assert not table["gain"].notna()["acf-dot"]
    assert table["base"].isna().all()  # no two variants have one task
    summary = json.loads(project.summary("digits").read_text())["digits"]
    assert ["accuracy" in summary[variant]["seed0"] for variant in TASKS] == [False, True, True]


def test_data_without_labels_are_refused(study: Study) -> None:
    root = with_tasks(study(training=SHORT))
    content = Labels().content()
    (root / "data/digits/labels.json").write_bytes(content)
    manifest = read_manifest("digits", root / "data").model_copy(update={"labels": labels_hash(content)})
    (root / "data/digits/manifest.json").write_text(manifest.model_dump_json())
    with pytest.raises(
        ConfigError, match=r"task\.kind is hybrid, which needs labels, and the data set digits has none"
    ):
        train("digits", "acf-l2", 0, "cpu", root)
    train("digits", "resflow", 0, "cpu", root)


def test_wrong_labels_are_refused(study: Study) -> None:
    root = with_tasks(study(training=SHORT))
    path = root / "data/digits/labels.json"
    before = training(Project(root), Run("digits", "acf-l2", 0)).inputs["labels"]
    content = json.loads(path.read_text())
    content["train"][0] = (content["train"][0] + 1) % 10
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"labels\.json is damaged"):
        train("digits", "acf-l2", 0, "cpu", root)
    manifest = read_manifest("digits", root / "data").model_copy(update={"labels": labels_hash(path.read_bytes())})
    (root / "data/digits/manifest.json").write_text(manifest.model_dump_json())
    project = Project(root)
    assert training(project, Run("digits", "acf-l2", 0)).inputs["labels"] != before
    assert "labels" not in training(project, Run("digits", "resflow", 0)).inputs
    path.unlink()
    with pytest.raises(DataError, match=r"labels\.json not found.*acf prepare --dataset digits"):
        train("digits", "acf-l2", 0, "cpu", root)
