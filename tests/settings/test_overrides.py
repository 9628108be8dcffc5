"""`dvc exp run -S` on this project's params.yaml."""

import json
import shutil
from pathlib import Path

import yaml
from dvc.utils.hydra import apply_overrides

PARAMS = Path(__file__).parents[2] / "params.yaml"


def test_dvc_changes_a_key_of_one_experiment_and_no_other(tmp_path: Path) -> None:
    """With sections that experiments share by YAML's anchors, DVC writes a file in which nothing has changed."""
    expected = json.loads(json.dumps(yaml.safe_load(PARAMS.read_text())))  # a value of its own for each experiment
    shutil.copy(PARAMS, tmp_path)
    for number, (name, experiment) in enumerate(expected["experiments"].items()):
        rate = 0.5 + number
        apply_overrides(tmp_path / PARAMS.name, [f"++experiments.{name}.training.learning_rate={rate}"])
        experiment["training"]["learning_rate"] = rate
    assert yaml.safe_load((tmp_path / PARAMS.name).read_text()) == expected
