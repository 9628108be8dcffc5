"""The table's means, standard errors and extremes, and the sentences drawn from them."""

import json
import math
from dataclasses import replace

import pandas as pd
import pytest
from scipy import stats

from acf.reporting.comparison import comparison
from acf.reporting.row_schemas import OVER_BASE
from acf.reporting.verdict import notes, verdict
from acf.reporting.wording import each_seed
from acf.stages.project import Project
from acf.stages.report import read_results, report
from tests.reporting.conftest import write_with_images

BASELINES = "results/digits/baselines.json"


def rows_of(root):
    table = comparison(read_results(Project(root), "digits"))
    return table, {row["row"]: row for _, row in table.iterrows()}


def images_of(root, table, column="bits_per_dim"):
    return pd.read_csv(root / "analyses/digits" / table)[column]


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
    paired = images_of(project, "baselines.csv", "gaussian") - images_of(project, "acf-l2/seed0/images.csv")
    assert row["gain_se"] == pytest.approx(stats.sem(paired))
    assert row["gain_se"] < 0.7 * math.hypot(0.0345, 0.0123)


def test_a_variant_is_compared_with_its_base_on_the_same_images(project):
    rows = rows_of(project)[1]
    paired = images_of(project, "resflow/seed0/images.csv") - images_of(project, "acf-l2/seed0/images.csv")
    row = rows["acf-l2"]
    assert row["base_gain"] == pytest.approx(0.11)
    assert row["base_gain_se"] == pytest.approx(stats.sem(paired))
    assert row["base_gain_se"] < 0.3 * math.hypot(0.0123, 0.0123)
    low, high = stats.ttest_1samp(paired, 0).confidence_interval(1 - 0.05 / 2)  # acf-dot is compared as well
    assert (row["base_gain_low"], row["base_gain_high"]) == pytest.approx((low, high))
    assert list(row[["base", "base_gain_over", "base_gain_training_df", "comparisons"]]) == ["resflow", "images", 0, 2]
    assert row["bits_per_dim_of_seeds"] == "0: 1.93"
    for name in ("gaussian", "resflow"):
        assert rows[name][list(OVER_BASE)].isna().all()


def test_the_errors_of_several_seeds_are_over_images_and_trainings(project_of_three_seeds):
    rows = rows_of(project_of_three_seeds)[1]
    row = rows["acf-l2"]
    assert row["base_gain"] == pytest.approx(0.11)
    between = 0.01**2  # of each variant, whose seeds are 0.01 apart
    assert row["base_gain_se"] ** 2 > (1 / 3 + 1 / 3) * between
    assert row["base_gain_se"] ** 2 < (1 / 3 + 1 / 3) * between + 0.0123**2 / 10
    assert (row["base_gain_over"], row["base_gain_training_df"]) == ("images and seeds", 6)
    values = [entry.split(": ") for entry in row["bits_per_dim_of_seeds"].split("; ")]
    assert {int(seed): float(value) for seed, value in values} == {0: 1.93, 1: 1.94, 2: 1.95}
    assert each_seed(row["bits_per_dim_of_seeds"], row["bits_per_dim_se"]) == "1.9300, 1.9400, 1.9500"
    assert each_seed("0: 1.93", 0.01) == each_seed(None, 0.01) == "—"


def test_several_seeds_show_the_mean_and_the_error_between_seeds(project_of_three_seeds):
    table, rows = rows_of(project_of_three_seeds)
    results = read_results(Project(project_of_three_seeds), "digits")
    row = rows["resflow"]
    assert (row["seeds"], row["se_over"]) == (3, "seeds")
    assert row["bits_per_dim"] == pytest.approx(2.05)  # of 2.04, 2.05, 2.06
    assert row["bits_per_dim_se"] == pytest.approx(0.01 / math.sqrt(3))
    assert row["log_prob_z"] + row["log_abs_det"] + row["dequantisation"] == pytest.approx(row["bits_per_dim"])
    assert row["train_seconds"] == pytest.approx(177)  # of 176, 177, 178
    assert row["reconstruction_error"] == pytest.approx(3.75e-6)
    assert row["certificate"] == pytest.approx(0.97)
    assert "between the seeds" in " ".join(notes(table, results))


def test_seeds_that_happen_to_agree_do_not_make_a_gain_certain(project_of_three_seeds):
    for seed in range(3):
        change(project_of_three_seeds, "acf-l2", seed, bits_per_dim=2.0)
    row = rows_of(project_of_three_seeds)[1]["acf-l2"]
    assert row["bits_per_dim_se"] == 0
    assert row["base_gain_se"] ** 2 > (1 / 3 + 1 / 3) * (2 / 3) * 0.01**2  # pooled with the other two variants
    for variant in ("resflow", "acf-dot"):
        for seed in range(3):
            change(project_of_three_seeds, variant, seed, bits_per_dim=2.0)
    row = rows_of(project_of_three_seeds)[1]["acf-l2"]
    assert row["base_gain"] == pytest.approx(0)
    assert row["base_gain_se"] > 5e-4  # over images


def test_what_a_baseline_has_not_is_empty(project):
    row = rows_of(project)[1]["gaussian"]
    for column in (
        "gain",
        "gain_se",
        "base_gain",
        "bits_per_dim_of_seeds",
        "certificate",
        "reconstruction_error",
        "train_steps",
        "log_prob_z",
        "device",
    ):
        assert pd.isna(row[column])


def sentences(root):
    results = read_results(Project(root), "digits")
    return verdict(comparison(results), results)


@pytest.mark.usefixtures("undrawn")
def test_gains_are_counted_from_the_best_baseline_that_could_be_fitted(project):
    record = json.loads((project / BASELINES).read_text())
    histogram = record["baselines"]["histogram"]["bits_per_dim"]
    del record["baselines"]["gaussian"]
    record |= {"not_available": {"gaussian": "too few images"}}
    write_with_images(project, BASELINES, record, "analyses/digits/baselines.csv")
    rows = rows_of(project)[1]
    assert "gaussian" not in rows
    assert rows["acf-l2"]["gain"] == pytest.approx(histogram - rows["acf-l2"]["bits_per_dim"])
    assert "the histogram baseline" in sentences(project)[1]
    assert "The gaussian baseline is not available: too few images." in sentences(project)
    report("digits", project)
    page = (project / "reports/digits/index.html").read_text()
    assert "Gain is the histogram baseline" in page


def test_the_verdict_counts_flows_that_beat_the_gaussian(project):
    assert "All 3 flows beat the gaussian baseline (2.235 ± 0.035" in sentences(project)[1]
    change(project, "acf-dot", bits_per_dim=2.2)
    assert sentences(project)[1].startswith("resflow and acf-l2 beat")
    assert sentences(project)[1].endswith("acf-dot not.")
    change(project, "acf-l2", bits_per_dim=2.2)
    change(project, "resflow", bits_per_dim=2.2)
    assert sentences(project)[1].startswith("No flow beats")


def test_the_verdict_names_a_baseline_that_is_better_than_the_gaussian(project):
    assert not any("histogram" in sentence for sentence in sentences(project))
    content = json.loads((project / BASELINES).read_text())
    content["baselines"]["histogram"]["bits_per_dim"] = 1.98
    write_with_images(project, BASELINES, content, "analyses/digits/baselines.csv")
    assert "All 3 flows beat the gaussian baseline" in sentences(project)[1]
    assert sentences(project)[2].startswith("acf-l2 beats the histogram baseline (1.980 ± 0.023 bits/dim)")


def test_the_verdict_compares_attention_with_its_base(project):
    change(project, "acf-dot", bits_per_dim=2.035)
    text = " ".join(sentences(project))
    assert "acf-l2 is better than resflow by 0.1100 ± 0.0032 bits/dim (95 % interval of the gain 0.10" in text
    assert "acf-dot does not differ from resflow beyond the error, 0.0050 ± 0.0035 bits/dim lower (95 % " in text
    change(project, "acf-dot", bits_per_dim=2.2)
    assert "acf-dot is worse than resflow by 0.1600 ± 0.0035 bits/dim" in " ".join(sentences(project))


def test_the_first_sentence_says_what_is_better_by_how_much_how_surely_and_at_what_cost(project):
    change(project, "acf-l2", train_seconds=2 * 176.0, parameters=84700 * 11 // 10)
    first = sentences(project)[0]
    assert first.startswith(
        "acf-l2 is better than resflow by 0.1100 ± 0.0032 bits/dim (95 % interval of the gain 0.1027 to 0.1173"
    )
    assert "one of 2 that hold at once, over 297 test images only, one training each)" in first
    assert (
        "at 2.00 times its training seconds and with 10.0% more parameters; also better than its base: acf-dot."
        in first
    )
    change(project, "acf-l2", train_device="cuda, Other")
    assert "at 2.00 times its training seconds, though on other devices and" in sentences(project)[0]


def test_a_flow_of_more_steps_comes_first_only_where_no_other_is_better(project):
    change(project, "acf-l2", train_steps=1200)
    assert sentences(project)[0].startswith("acf-dot is better than resflow by")
    assert sentences(project)[0].endswith("also better than its base: acf-l2.")
    change(project, "acf-dot", bits_per_dim=2.1)
    first = sentences(project)[0]
    assert first.startswith("acf-l2 is better than resflow by 0.1100")
    assert first.endswith("parameters and after 1,200 instead of 800 training steps.")


def test_the_first_sentence_says_that_none_is_better(project):
    for variant, bits in {"acf-l2": 2.1, "acf-dot": 2.037}.items():
        change(project, variant, bits_per_dim=bits)
    first, *others = sentences(project)
    assert first.startswith(
        "None of 2 variants is better than its base: acf-dot comes closest, it does not differ from resflow beyond the "
        "error, 0.0030 ± 0.0035 bits/dim lower (95 % interval of the gain −0.00"
    )
    assert any(sentence.startswith("acf-l2 is worse than resflow by 0.0600 ± 0.0032") for sentence in others)


def test_seeds_count_in_the_first_sentence(project_of_three_seeds):
    assert "over 297 test images and 3 seeds each)" in sentences(project_of_three_seeds)[0]
    table, _ = rows_of(project_of_three_seeds)
    text = " ".join(notes(table, read_results(Project(project_of_three_seeds), "digits")))
    assert "hold at once with 95 % (Bonferroni, 2 comparisons), over test images and over trainings" in text
    assert "estimated with 6 degrees of freedom" in text


def without(results, runs):
    """Results in which some models are not measured."""
    metrics = {v: [m for m in seeds if (v, m.seed) not in runs] for v, seeds in results.metrics.items()}
    return replace(results, metrics=metrics, images={run: v for run, v in results.images.items() if run not in runs})


def test_what_is_not_measured_yet_is_left_out(project_of_three_seeds):
    everything = read_results(Project(project_of_three_seeds), "digits")
    l2, base = ({(variant, seed) for seed in range(3)} for variant in ("acf-l2", "resflow"))
    for missing, expected in (
        ({("acf-l2", 1), ("acf-l2", 2)}, "seeds, 1 of acf-l2 and 3 of resflow), at"),
        (l2, "acf-dot does not differ from resflow beyond the error, 0.01"),
        (base, "No variant can be compared with its base: they are not measured yet on the same images."),
        (base | l2 | {("acf-dot", seed) for seed in range(3)}, "No variant can be compared with its base"),
    ):
        results = without(everything, missing)
        table = comparison(results)
        assert set(table["row"]) == {
            *results.baselines.baselines,
            *(v for v, seeds in results.metrics.items() if seeds),
        }
        said = verdict(table, results)
        assert expected in said[0]
        assert not any(" nan" in sentence.lower() for sentence in [*said, *notes(table, results)])
    alone = replace(everything, bases=dict.fromkeys(everything.bases))
    assert verdict(comparison(alone), alone)[0] == "No variant of this experiment has a base to be compared with."


def test_models_that_saw_other_images_are_not_compared(project):
    change(project, "acf-l2", test_images=100)
    row = rows_of(project)[1]["acf-l2"]
    assert pd.isna(row["gain"])
    assert pd.isna(row["base_gain"])
    text = " ".join(sentences(project))
    assert "acf-l2 cannot be compared with resflow: they are not measured on the same images." in text
    assert "acf-l2 cannot be compared with it: not measured on the same images." in text


def test_the_verdict_says_what_is_unequal(project):
    for variant in ("resflow", "acf-l2", "acf-dot"):
        change(project, variant, parameters=1000)
    first, *others = sentences(project)
    assert "with as many parameters" in first
    assert not any("parameters" in sentence or "differ in" in sentence for sentence in others)
    change(project, "acf-l2", parameters=1250, train_steps=400)
    text = " ".join(sentences(project))
    assert "acf-l2 has 1,250 parameters, 25.0% more than resflow (1,000)." in text
    assert "The rows differ in training steps: resflow 800, acf-l2 400, acf-dot 800." in text
    change(project, "acf-l2", test_images=100)
    assert "gaussian 297, resflow 297, acf-l2 100" in " ".join(sentences(project))
