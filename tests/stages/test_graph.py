"""`acf graph`: dvc.yaml follows the experiments of params.yaml."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from acf.errors import ConfigError
from acf.registry import ANALYSES
from acf.stages.graph import GRAPH, TEMPLATE, check_graph, write_graph

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(study: Callable[..., Path]) -> Path:
    """The tiny study on digits, with the template of its graph."""
    root = study()
    (root / TEMPLATE).parent.mkdir()
    shutil.copy(ROOT / TEMPLATE, root / TEMPLATE)
    return root


def add_experiment(root: Path, name: str) -> None:
    path = root / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["experiments"][name] = params["experiments"]["digits"]
    path.write_text(yaml.safe_dump(params, sort_keys=False))


def test_an_added_experiment_gets_its_stages(project: Path) -> None:
    write_graph(project)
    before = yaml.safe_load((project / GRAPH).read_text())["stages"]
    add_experiment(project, "digits-small")
    write_graph(project)
    after = yaml.safe_load((project / GRAPH).read_text())["stages"]
    assert set(after) - set(before) == {f"{stage}-digits-small" for stage in ("train", "evaluate", "sample", *ANALYSES)}
    assert "reports/digits-small" in after["index"]["deps"]
    listed = {name: (before[name].pop("foreach"), after[name].pop("foreach")) for name in ("baselines", "report")}
    assert all(earlier.items() < later.items() for earlier, later in listed.values())
    assert all(after[name] == stage for name, stage in before.items() if name != "index")


def test_what_is_made_of_a_data_set_is_read_from_its_source(project: Path) -> None:
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["datasets"]["digits-4"] = {"source": "digits", "average": 2}
    params["experiments"]["digits"]["dataset"] = "digits-4"
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    write_graph(project)
    stages = yaml.safe_load((project / GRAPH).read_text())["stages"]
    assert stages["prepare"]["foreach"] == ["digits"]
    assert "data/digits/train.pth" in stages["train-digits"]["deps"]
    assert "datasets.${experiments.digits.dataset}" in stages["train-digits"]["params"]
    entry = {"dataset": "${experiments.digits.dataset}", "data": "digits"}
    assert stages["baselines"]["foreach"] == stages["report"]["foreach"] == {"digits": entry}


def test_a_graph_that_lacks_an_experiment_is_found(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"dvc\.yaml is not the graph of .*params\.yaml; run: acf graph"):
        check_graph(project)
    write_graph(project)
    check_graph(project)
    assert "up to date" in capsys.readouterr().out
    add_experiment(project, "more")
    with pytest.raises(ConfigError, match="run: acf graph"):
        check_graph(project)


def test_other_seeds_and_variants_need_no_new_graph(project: Path) -> None:
    write_graph(project)
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["experiments"]["digits"] |= {"seeds": [0, 1, 2], "variants": {"resflow": {}}}
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    check_graph(project)


def test_a_missing_template_is_named(study: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=r"workflow/dvc\.yaml\.j2 not found"):
        write_graph(study())
