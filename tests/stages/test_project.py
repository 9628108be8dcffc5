"""Where things of a project are."""

from pathlib import Path

import pytest

from acf.errors import ConfigError
from acf.stages.project import Project

PARAMS = Path(__file__).parents[2] / "params.yaml"


def test_a_mistake_elsewhere_in_params_is_not_taken_for_an_unknown_data_set(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS.read_text())
    assert Project(tmp_path).source("fashion-mnist-14") == "fashion-mnist"
    assert Project(tmp_path).source("nope") == "nope"
    (tmp_path / "params.yaml").write_text(PARAMS.read_text().replace("    steps: 100000\n", "    stepps: 100000\n"))
    with pytest.raises(ConfigError, match=r"stepps"):
        Project(tmp_path).source("fashion-mnist-14")
    assert Project(tmp_path).source("digits") == "digits", "preparing it needs no params.yaml that is whole"
