"""The report's section on labels: what it says of differences in accuracy."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from acf.reporting.comparison import comparison
from acf.reporting.image_table import image_table
from acf.reporting.sections.labels_section import labels_section, mcnemar
from acf.reporting.style import looks
from acf.reporting.verdict import verdict
from acf.stages.experiment_results import read_results
from acf.stages.project import Project
from tests.reporting.conftest import VARIANTS

RIGHT = {"resflow": 200, "acf-l2": 240, "acf-dot": 236}
N = 297


def test_mcnemar_is_the_binomial_law() -> None:
    assert mcnemar(0, 0) == mcnemar(4, 4) == 1
    assert mcnemar(1, 9) == mcnemar(9, 1) == pytest.approx(2 * 11 / 1024)
    assert mcnemar(0, 20) == pytest.approx(2 / 2**20)


def give_labels(root: Path, seeds: list[int]) -> None:
    """Have every result say that the first `RIGHT` images, and as many of each seed's own, are told."""
    params = yaml.safe_load((root / "params.yaml").read_text())
    for experiment in params["experiments"].values():
        experiment["variants"] = {v: {"training": {"task": {"kind": "hybrid"}}} for v in VARIANTS}
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    for variant, right in RIGHT.items():
        for seed in seeds:
            run = f"digits/{variant}/seed{seed}"
            path, table = root / f"results/{run}/metrics.json", root / f"analyses/{run}/images.csv"
            metrics = json.loads(path.read_text())
            names, *rows = table.read_text().splitlines()
            values = np.array([row.split(",") for row in rows], dtype=float).T
            correct = (np.arange(N) < right + seed).astype(float)
            columns = dict(zip(names.split(",")[1:], values[1:], strict=True))
            columns |= {"correct": correct, "label_log_prob": np.log(np.where(correct > 0, 0.9, 0.05))}
            content = image_table(columns)
            table.write_bytes(content)
            accuracy = float(correct.mean())
            metrics["images_sha256"] = hashlib.sha256(content).hexdigest()
            metrics["classification"] = {
                **{"classes": 10, "accuracy": accuracy, "accuracy_se": 0.02},
                **{"cross_entropy": -float(columns["label_log_prob"].mean()), "cross_entropy_se": 0.05},
                **{"calibration_error": abs(0.9 - accuracy), "calibration_error_se": 0.02},
                **{"calibration_error_floor": 0.01, "bins": [{"images": N, "confidence": 0.9, "accuracy": accuracy}]},
            }
            path.write_text(json.dumps(metrics))


@pytest.mark.usefixtures("undrawn")
def test_differences_of_accuracy_are_paired(project: Path) -> None:
    give_labels(project, [0])
    section = labels_section(read_results(Project(project), "digits"), looks(list(VARIANTS)))
    assert section is not None
    measures, differences = section.tables
    assert [row[:3] for row in measures.rows] == [
        ["resflow", "hybrid", "0.673 ± 0.027"],
        ["acf-l2", "hybrid", "0.808 ± 0.023"],
        ["acf-dot", "hybrid", "0.795 ± 0.023"],
    ]
    rows = {(row[0], row[1]): row[2:] for row in differences.rows}
    assert set(rows) == {("resflow", "acf-l2"), ("resflow", "acf-dot"), ("acf-l2", "acf-dot")}
    # Images that only one tells: 40 and 0, so the difference is -40/297 and its error sqrt(p (1 - p) / (N - 1)).
    assert rows["resflow", "acf-l2"][0] == "−0.135 ± 0.020"
    assert rows["resflow", "acf-l2"][2:] == ["0, 40", "1.8e−12"]
    assert rows["acf-l2", "acf-dot"][2:] == ["4, 0", "0.12"]
    text = " ".join(section.sentences)
    assert "acf-l2 tells the class of a test image most often" in text
    assert "acf-l2 is more accurate than resflow by 0.135 ± 0.020" in text
    assert "acf-l2 is more accurate than acf-dot" not in text
    assert [figure.name for figure in section.figures] == ["reliability", "accuracy-steps"]


@pytest.mark.usefixtures("undrawn")
def test_several_trainings_have_their_spread_in_the_error(project_of_three_seeds: Path) -> None:
    give_labels(project_of_three_seeds, [0, 1, 2])
    section = labels_section(read_results(Project(project_of_three_seeds), "digits"), looks(list(VARIANTS)))
    assert section is not None
    assert all(row[-2:] == ["—", "—"] for row in section.tables[1].rows)
    assert "over test images and trainings" in section.notes[1]


@pytest.mark.usefixtures("undrawn")
def test_classifiers_are_not_compared_by_densities_that_they_are_not_trained_for(project: Path) -> None:
    give_labels(project, [0])
    params = (project / "params.yaml").read_text().replace("kind: hybrid", "kind: classification")
    (project / "params.yaml").write_text(params)
    results = read_results(Project(project), "digits")
    table = comparison(results)
    first, *others = verdict(table, results)
    assert (
        first
        == "No variant of this experiment is trained for bits/dim; the section Labels has what they are trained for."
    )
    assert any(one.startswith("resflow, acf-l2 and acf-dot: trained for labels alone") for one in others)
    assert not any("better" in one or "beats" in one for one in [first, *others])
    assert table.set_index("row")["gain"].drop(["uniform", "histogram", "gaussian"]).isna().all()
    assert results.bases == {"resflow": None, "acf-l2": "resflow", "acf-dot": "resflow"}


def test_an_experiment_without_labels_has_no_section(project: Path) -> None:
    assert labels_section(read_results(Project(project), "digits"), looks(list(VARIANTS))) is None
