"""Published figures carry a mark and a source; a data set without any has none."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from acf.reporting.comparison import comparison
from acf.reporting.published_figures import MARKS, published, published_section, state
from acf.reporting.verdict import notes
from acf.settings.params import Params
from acf.stages.experiment_results import read_results
from acf.stages.project import Project

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("dataset", ["mnist", "cifar10", "imagenet32", "imagenet64", "celebahq256"])
def test_every_figure_has_a_mark_and_a_source(dataset):
    entries = published(dataset)
    assert entries
    for entry in entries:
        value, mark = entry.bits_per_dim.split()
        assert 0 < float(value) < 8
        assert mark in MARKS
        assert entry.source.startswith("arXiv ")


def test_digits_are_kept_as_published():
    residual_flow = next(entry for entry in published("mnist") if entry.model == "Residual Flow")
    assert residual_flow.bits_per_dim == "0.970 M"


def test_a_data_set_without_published_figures():
    assert published("digits") == []


def test_variants_and_epochs_are_of_models_and_data_sets_that_there_are():
    study = Params(ROOT / "params.yaml")
    counted = [entry for dataset in study.datasets for entry in published(dataset)]
    assert {entry.variant for entry in counted} - {None} == {"resflow", "idensenet"} <= set(study.raw["variants"])
    for entry in counted:
        assert (entry.epochs is None) == (entry.epochs_source == "")


@pytest.mark.parametrize(
    ("published", "bits", "error", "said"),
    [
        ("3.28", 3.28, 0.001, "reproduced"),
        ("3.28", 3.287, 0.001, "reproduced"),  # half a digit, 0.005, and three errors
        ("3.28", 3.288, 0.001, "reproduced"),
        ("3.28", 3.2881, 0.001, "outside tolerance, 0.008 higher"),
        ("3.28", 3.25, 0.001, "outside tolerance, 0.030 lower"),
        ("0.970", 0.974, 0.001, "outside tolerance, 0.004 higher"),
        ("0.970", 0.9705, 0.0, "reproduced"),
    ],
)
def test_ours_reproduce_a_figure_within_its_tolerance(published, bits, error, said):
    assert state(published, bits, error, 3) == said


def states(results, training_images):
    """The state of each published figure on MNIST, as if the results were on it."""
    section = published_section(comparison(results), replace(results, dataset="mnist"), training_images)
    table = section.tables[0]
    return {row[0]: dict(zip(table.headings, row, strict=True)) for row in table.rows}


def test_each_figure_has_a_state(project):
    results = read_results(Project(project), "digits")
    rows = states(results, 51)  # 800 steps of 64 images are 1004 epochs of 51 images
    assert rows["Residual Flow"]["our bits/dim"] == "2.040 ± 0.012"
    assert rows["Residual Flow"]["epochs"] == "1000"
    assert rows["Residual Flow"]["state"] == "outside tolerance, 1.070 higher"
    assert {row["state"] for name, row in rows.items() if name != "Residual Flow"} == {"not run"}
    assert rows["Glow"]["epochs"] == "not available"


def test_a_flow_that_is_trained_for_labels_too_reproduces_no_density(project):
    results = read_results(Project(project), "digits")
    assert results.tasks["resflow"] == "density"
    other = replace(results, tasks={**results.tasks, "resflow": "hybrid"})
    assert states(other, 51)["Residual Flow"]["state"] == "not run"


def test_a_shorter_training_is_a_reduced_budget(project):
    results = read_results(Project(project), "digits")
    row = states(results, 60_000)["Residual Flow"]
    assert (row["state"], row["our epochs"]) == ("reduced budget", "0.853")
    row = states(results, None)["Residual Flow"]
    assert row["our epochs"] == "not available"
    assert row["state"].startswith("outside tolerance")


def test_a_variant_that_is_not_evaluated_is_not_run(project):
    (project / "results/digits/resflow/seed0/metrics.json").unlink()
    assert states(read_results(Project(project), "digits"), 60_000)["Residual Flow"]["state"] == "not run"


def test_what_is_made_of_a_data_set_has_no_published_figures(project):
    results = replace(read_results(Project(project), "digits"), dataset="mnist", made="Half of every image of mnist.")
    section = published_section(comparison(results), results, 60_000)
    assert not section.tables
    assert section.sentences == ["Published figures on this data set: not available.", results.made]


def test_what_is_said_of_the_data_stands_in_the_report(project):
    said = {"made": "Half of every image.", "remark": "It is a toy."}
    results = replace(read_results(Project(project), "digits"), **said)
    assert notes(comparison(results), results)[0] == results.on_data == "Half of every image. It is a toy."
    assert read_results(Project(project), "digits").on_data == ""


def test_every_state_is_explained(project):
    results = read_results(Project(project), "digits")
    notes = " ".join(published_section(comparison(results), replace(results, dataset="mnist"), 60_000).notes)
    for word in ("reproduced", "outside tolerance", "reduced budget", "not run"):
        assert re.search(rf"{word}: \w", notes)
