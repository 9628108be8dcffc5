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
    first, *others = expected["experiments"]
    for names in ([first], others):  # one call of DVC takes a second
        rates = {name: 0.5 + list(expected["experiments"]).index(name) for name in names}
        overrides = [f"++experiments.{name}.training.learning_rate={rate}" for name, rate in rates.items()]
        apply_overrides(tmp_path / PARAMS.name, overrides)
        for name, rate in rates.items():
            expected["experiments"][name]["training"]["learning_rate"] = rate
        assert yaml.safe_load((tmp_path / PARAMS.name).read_text()) == expected
