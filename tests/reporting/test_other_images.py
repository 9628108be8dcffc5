"""What is of other images than params.yaml now gives an experiment is not mixed with what is of these."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from acf.errors import AcfError
from acf.reporting.schemas import Metrics
from acf.settings.params import Run
from acf.stages.experiment_results import read_results
from acf.stages.measured_files import OtherImagesError, read_measured
from acf.stages.project import Project


def change(path: Path, key: str, value: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {key: value}))


@pytest.mark.parametrize(
    ("model", "is_of_them"),
    [
        ({"shape": [1, 8, 8], "levels": 17}, True),
        ({"shape": [1, 4, 4], "levels": 17}, False),
        ({"shape": [1, 8, 8], "levels": 16}, False),
    ],
)
def test_a_flow_of_other_images_is_absent(project: Path, model: dict[str, Any], is_of_them: bool) -> None:
    change(project / "models/digits/acf-l2/seed0/config.json", "model", model)
    absent = [one.text for one in read_results(Project(project), "digits").absent]
    command = "acf train --experiment digits --variant acf-l2 --seed 0"
    assert absent == ([] if is_of_them else [f"acf-l2, seed 0: trained on other images; run: {command}"])
    if not is_of_them:
        run = Run("digits", "acf-l2", 0)
        path = Project(project).metrics(run)
        with pytest.raises(OtherImagesError, match="trained on other images"):
            read_measured(Project(project), run, "evaluate", path, Metrics)


def test_baselines_of_other_images_are_refused(project: Path) -> None:
    path = project / "params.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["datasets"]["digits-4"] = {"source": "digits", "average": 2}
    settings["experiments"]["digits"]["dataset"] = "digits-4"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    change(project / "results/digits/baselines.json", "dataset", "digits-4")
    with pytest.raises(AcfError, match=r"baselines\.json is of other images than .*; run: acf baselines"):
        read_results(Project(project), "digits")
