"""The table's means, standard errors and extremes, and the sentences drawn from them."""

import json
import math

import pandas as pd
import pytest

from acf.reporting.comparison import comparison
from acf.reporting.verdict import notes, verdict
from acf.stages.project import Project
from acf.stages.report import read_results, report
from tests.reporting.conftest import write_with_images

BASELINES = "results/digits/baselines.json"


def rows_of(root):
    table = comparison(read_results(Project(root), "digits"))
    return table, {row["row"]: row for _, row in table.iterrows()}


def change(root, variant, seed=0, **values):
    """Change keys of a metrics.json, and the log-determinant with bits/dim, of which it is a part, and its images."""
    run = f"digits/{variant}/seed{seed}"
    path = f"results/{run}/metrics.json"
    content = json.loads((root / path).read_text())
    content["parts"]["log_abs_det"] += values.get("bits_per_dim", content["bits_per_dim"]) - content["bits_per_dim"]
    write_with_images(root, path, content | values, f"analyses/{run}/images.csv")


def test_one_row_per_baseline_then_per_variant_in_the_order_of_params(project):
    table, _ = rows_of(project)
    assert list(table["row"]) == ["uniform", "histogram", "gaussian", "resflow", "acf-l2", "acf-dot"]
    assert list(table["kind"]) == ["baseline"] * 3 + ["flow"] * 3


def test_one_seed_shows_the_error_over_images(project):
    row = rows_of(project)[1]["acf-l2"]
    assert (row["bits_per_dim"], row["bits_per_dim_se"], row["se_over"]) == (1.93, 0.0123, "images")
    assert row["gain"] == pytest.approx(2.23456789 - 1.93)
    assert row["gain_se"] == pytest.approx(math.sqrt(0.0345**2 + 0.0123**2))


def test_several_seeds_show_the_mean_and_the_error_between_seeds(project_of_three_seeds):
    table, rows = rows_of(project_of_three_seeds)
    results = read_results(Project(project_of_three_seeds), "digits")
    row = rows["resflow"]
    assert (row["seeds"], row["se_over"]) == (3, "seeds")
    assert row["bits_per_dim"] == pytest.approx(2.05)  # of 2.04, 2.05, 2.06
    assert row["bits_per_dim_se"] == pytest.approx(0.01 / math.sqrt(3))
    assert row["log_prob_z"] + row["log_abs_det"] + row["dequantisation"] == pytest.approx(row["bits_per_dim"])
    assert row["train_seconds"] == pytest.approx(94.4)
    assert row["reconstruction_error"] == pytest.approx(3.75e-6)
    assert row["certificate"] == pytest.approx(0.97)
    assert "between the seeds" in " ".join(notes(table, results))


def test_seeds_that_happen_to_agree_do_not_make_a_gain_certain(project_of_three_seeds):
    for seed in range(3):
        change(project_of_three_seeds, "acf-l2", seed, bits_per_dim=2.0)
    row = rows_of(project_of_three_seeds)[1]["acf-l2"]
    assert row["bits_per_dim_se"] == 0
    assert row["gain_se"] == pytest.approx(math.hypot(0.0345, 0.0123))


def test_what_a_baseline_has_not_is_empty(project):
    row = rows_of(project)[1]["gaussian"]
    for column in ("gain", "gain_se", "certificate", "reconstruction_error", "train_steps", "log_prob_z", "device"):
        assert pd.isna(row[column])


def sentences(root):
    results = read_results(Project(root), "digits")
    return verdict(comparison(results), results)


def test_gains_are_counted_from_the_best_baseline_that_could_be_fitted(project):
    record = json.loads((project / BASELINES).read_text())
    histogram = record["baselines"]["histogram"]["bits_per_dim"]
    del record["baselines"]["gaussian"]
    record |= {"not_available": {"gaussian": "too few images"}}
    write_with_images(project, BASELINES, record, "analyses/digits/baselines.csv")
    rows = rows_of(project)[1]
    assert "gaussian" not in rows
    assert rows["acf-l2"]["gain"] == pytest.approx(histogram - rows["acf-l2"]["bits_per_dim"])
    assert "the histogram baseline" in sentences(project)[0]
    assert "The gaussian baseline is not available: too few images." in sentences(project)
    report("digits", project)
    page = (project / "reports/digits/index.html").read_text()
    assert "Gain is the histogram baseline" in page


def test_the_verdict_counts_flows_that_beat_the_gaussian(project):
    assert "All 3 flows beat the gaussian baseline (2.235 ± 0.035" in sentences(project)[0]
    change(project, "acf-dot", bits_per_dim=2.2)
    assert sentences(project)[0].startswith("resflow and acf-l2 beat")
    assert sentences(project)[0].endswith("acf-dot not.")
    change(project, "acf-l2", bits_per_dim=2.2)
    change(project, "resflow", bits_per_dim=2.2)
    assert sentences(project)[0].startswith("No flow beats")


def test_the_verdict_names_a_baseline_that_is_better_than_the_gaussian(project):
    assert not any("histogram" in sentence for sentence in sentences(project))
    content = json.loads((project / BASELINES).read_text())
    content["baselines"]["histogram"]["bits_per_dim"] = 1.98
    write_with_images(project, BASELINES, content, "analyses/digits/baselines.csv")
    assert "All 3 flows beat the gaussian baseline" in sentences(project)[0]
    assert sentences(project)[1].startswith("No flow beats the histogram baseline (1.980 ± 0.023 bits/dim)")


def test_the_verdict_compares_attention_with_its_base(project):
    text = " ".join(sentences(project))
    assert "acf-l2 is better than resflow beyond the noise, by 0.110 ± 0.017 bits/dim." in text
    assert "acf-dot does not differ from resflow beyond the noise (0.010 ± 0.017 bits/dim lower)." in text
    change(project, "acf-dot", bits_per_dim=2.2)
    assert "acf-dot is worse than resflow beyond the noise, by 0.160" in " ".join(sentences(project))


def test_the_verdict_says_what_is_unequal(project):
    for variant in ("resflow", "acf-l2", "acf-dot"):
        change(project, variant, parameters=1000)
    assert not any("parameters" in sentence or "differ in" in sentence for sentence in sentences(project))
    change(project, "acf-l2", parameters=1250, train_steps=400)
    text = " ".join(sentences(project))
    assert "acf-l2 has 1,250 parameters, 25.0% more than resflow (1,000)." in text
    assert "The rows differ in training steps: resflow 800, acf-l2 400, acf-dot 800." in text
    change(project, "acf-l2", test_images=100)
    assert "gaussian 297, resflow 297, acf-l2 100" in " ".join(sentences(project))
