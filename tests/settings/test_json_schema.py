from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from acf.errors import ConfigError
from acf.settings.json_schema import SCHEMA_FILE, params_schema, schema_text
from acf.settings.params import Params

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def study() -> dict[str, Any]:
    """What params.yaml has, which no test changes."""
    return yaml.safe_load((ROOT / "params.yaml").read_text())


def test_committed_schema_is_up_to_date() -> None:
    assert (ROOT / SCHEMA_FILE).read_text() == schema_text(), "run: python -m acf.settings.json_schema"


def test_params_yaml_fits(study: dict[str, Any]) -> None:
    jsonschema.validate(study, params_schema())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("defaults.model.bloks", [1]),
        ("defaults.training.learning_rate", -1),
        ("experiments.digits.seeds", []),
        ("experiments.digits.variants.resflow.evaluation", {}),
        ("experiments.digits.dataset", "cifar11"),
        ("datasets.cifar11", {}),
        ("datasets.cifar10-16", {"average": 2}),
        ("datasets.cifar11-16", {"source": "cifar10"}),
        ("datasets.cifar10", {"average": 2}),
        ("variants.a b", {}),
        ("extra", 1),
    ],
)
def test_schema_refuses_what_the_program_refuses(study: dict[str, Any], key: str, value: Any, tmp_path: Path) -> None:
    wrong = deepcopy(study)
    *parents, last = key.split(".")
    section = wrong
    for name in parents:
        section = section[name]
    section[last] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, params_schema())
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(wrong))
    with pytest.raises(ConfigError):
        Params(tmp_path / "params.yaml")
