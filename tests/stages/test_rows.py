"""A study on the rows of a table, stage by stage: what is measured, drawn, reported, and what is no part of it."""

import csv
import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.stats import multivariate_normal, norm

from acf.data.prepared.tensors import load_vectors
from acf.data.sources.table import Table
from acf.errors import ConfigError
from acf.flows.storage import load
from acf.registry import TABLES
from acf.reporting.rows_file import RowsFile
from acf.runs.recipe import all_code_hashes
from acf.settings.params import Params, Run
from acf.stages.analyse import computation as analysis
from acf.stages.baselines import baselines
from acf.stages.evaluate import evaluate
from acf.stages.export import export
from acf.stages.graph import graph_text
from acf.stages.prepare import prepare
from acf.stages.project import Project
from acf.stages.report import report
from acf.stages.sample import sample
from acf.stages.train import train
from tests.conftest import ANALYSES, EVALUATION, MODEL, TRAINING

RUN = Run("rings", "resflow", 0)
ROOT = Path(__file__).parents[2]


class Rings(Table):
    name, table = "rings", "to be set"


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    """Register the table; the hashes of the code, which take a second each, are computed once."""
    codes = all_code_hashes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TABLES, "rings", f"{__name__}:Rings")
        for module in ("cached", "prepare", "report"):
            patch.setattr(f"acf.stages.{module}.code_hashes", codes.__getitem__)
        yield


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, _registered: None) -> Path:
    """A project in which all stages have run; no test changes it."""
    root = tmp_path_factory.mktemp("rings")
    generator = np.random.default_rng(0)
    angle, radius = generator.uniform(0, 2 * math.pi, 300), 1 + 0.1 * generator.normal(size=300)
    rows = np.stack([50 + 20 * radius * np.cos(angle), radius * np.sin(angle)], 1)
    lines = ["length,width", *(",".join(map(repr, row)) for row in rows.tolist())]
    (root / "rings.csv").write_text("\n".join(lines) + "\n")
    Rings.table = str(root / "rings.csv")
    (root / "params.yaml").write_text(yaml.safe_dump(study(), sort_keys=False))
    prepare("rings", root / "data")
    train(*RUN, "cpu", root)
    evaluate(*RUN, "cpu", root)
    baselines("rings", root)
    sample(*RUN, "cpu", root)
    report("rings", root)
    return root


def study() -> dict[str, object]:
    defaults = {
        "model": MODEL | {"blocks": [2], "squeeze_first": False},
        "training": TRAINING,
        "evaluation": EVALUATION | {"log_det": {"estimator": "exact"}},
        "sampling": {"samples": 40, "reconstructions": 3, "temperatures": [0.9]},
        "analyses": ANALYSES,
        "reporting": {},
    }
    of_rings = {name: {} for name in defaults} | {"dataset": "rings", "seeds": [0], "variants": {"resflow": {}}}
    return {
        "defaults": defaults,
        "datasets": {"rings": {}},
        "variants": {"resflow": {}},
        "experiments": {"rings": of_rings},
    }


def test_bits_per_dim_is_of_the_density_alone(built: Path) -> None:
    flow = load(built / "models" / RUN.folder, torch.device("cpu"))
    x = load_vectors("rings", "test", built / "data")[:24]
    flow.eval().use_evaluation_estimator(Params(built / "params.yaml").evaluation("rings").log_det)
    with torch.no_grad():
        nats = float(flow.log_prob(x).double().mean())
    metrics = json.loads((built / "results" / RUN.folder / "metrics.json").read_text())
    assert metrics["bits_per_dim"] == pytest.approx(-nats / (2 * math.log(2)), rel=1e-5)
    assert metrics["parts"]["dequantisation"] == 0
    assert metrics["bits_per_dim_se_draws"] == pytest.approx(0, abs=1e-6)  # nothing is drawn
    page = (built / "reports/rings/index.html").read_text()
    assert page.count("nats per row") > 1
    assert re.search(rf"{abs(nats):.2f} ± ", page)


def test_baselines_are_gaussians_of_the_training_rows(built: Path) -> None:
    train_rows, test_rows = (
        load_vectors("rings", split, built / "data")[:].double().numpy() for split in ("train", "test")
    )
    found = json.loads((built / "results/rings/baselines.json").read_text())["baselines"]
    mean, std = train_rows.mean(0), train_rows.std(0)
    full = multivariate_normal(mean, np.cov(train_rows.T, bias=True)).logpdf(test_rows[:24]).mean()
    alone = norm(mean, std).logpdf(test_rows[:24]).sum(1).mean()
    assert found["gaussian"]["bits_per_dim"] == pytest.approx(-full / (2 * math.log(2)), rel=1e-9)
    assert found["diagonal"]["bits_per_dim"] == pytest.approx(-alone / (2 * math.log(2)), rel=1e-9)
    assert (found["gaussian"]["parameters"], found["diagonal"]["parameters"]) == (5, 4)


def test_samples_are_in_the_units_of_the_table(built: Path) -> None:
    folder = built / "samples" / RUN.folder
    with (folder / "rows.csv").open() as file:
        heads, *lines = csv.reader(file)
    manifest = prepare("rings", built / "data")
    flow = load(built / "models" / RUN.folder, torch.device("cpu"))
    x = flow.sample(40, 0.9, torch.Generator().manual_seed(0)).double().numpy()
    mean, std = (np.array([getattr(c, what) for c in manifest.columns or ()]) for what in ("mean", "std"))
    values = np.array(lines, float)
    assert heads == ["length", "width"]
    assert np.allclose(values, mean + std * x, rtol=1e-9)
    record = RowsFile.model_validate_json((folder / "rows.json").read_bytes())
    assert [c.of_samples.mean for c in record.columns] == pytest.approx(values.mean(0).tolist())
    assert [c.of_samples.std for c in record.columns] == pytest.approx(values.std(0, ddof=1).tolist())
    test = mean + std * load_vectors("rings", "test", built / "data")[:40].double().numpy()
    assert [c.of_test.mean for c in record.columns] == pytest.approx(test.mean(0).tolist())
    assert max(record.reconstructions.largest) < 1e-3
    assert {path.name for path in folder.iterdir()} == {"pairs.png", "rows.csv", "rows.json"}


def test_the_report_speaks_of_rows_alone(built: Path) -> None:
    page = (built / "reports/rings/index.html").read_text()
    text = re.sub(r'(src|href|content)="[^"]*"|<style.*?</style>|<script.*?</script>', "", page, flags=re.S)
    text = re.sub(r"<[^>]*>", " ", text)
    assert "24 test rows" in text
    for word in ("image", "pixel", "grey value", "attention maps", "Fréchet", "nearest", "Interpolation", "noise"):
        assert word not in text, word
    sections = set(re.findall(r'<section id="([\w-]+)"', page)) or set(re.findall(r'id="([\w-]+)"', page))
    assert {"density", "samples", "reconstructions", "certificates"} <= sections
    assert not sections & {*ANALYSES, "nearest", "temperatures"} - {"density"}


def test_engines_leave_out_what_looks_at_images(built: Path) -> None:
    project = Project(built)
    assert project.params.analysed("rings") == []
    shutil.copytree(ROOT / "workflow", built / "workflow")
    stages = yaml.safe_load(graph_text(project))["stages"]
    assert {name for name in stages if "rings" in name} == {"train-rings", "evaluate-rings", "sample-rings"}
    assert [path.rpartition("/")[2] for path in stages["sample-rings"]["outs"]] == [
        "pairs.png",
        "rows.csv",
        "rows.json",
    ]
    with pytest.raises(ConfigError, match="looks at images, and data set rings has vectors"):
        analysis(project, "audit", RUN)


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("training", {"horizontal_flips": True}, "horizontal_flips mirrors images, and rings is a table"),
        ("model", {"attention": {"kind": "l2"}}, "attention is among the positions of a map, and vectors have none"),
        ("model", {"blocks": [1, 1]}, "a flow on vectors has one scale"),
    ],
)
def test_settings_of_images_are_refused(
    section: str, changes: dict[str, object], message: str, built: Path, tmp_path: Path
) -> None:
    shutil.copytree(built / "data", tmp_path / "data")
    changed = study()
    changed["experiments"]["rings"][section] = changes  # type: ignore[index]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(changed))
    with pytest.raises(ConfigError, match=message):
        train(*RUN, "cpu", tmp_path)


def test_an_exported_model_knows_the_units_of_its_rows(built: Path, tmp_path: Path) -> None:
    export(RUN, tmp_path / "rings", root=built)
    columns = json.loads((tmp_path / "rings/config.json").read_text())["data"]["columns"]
    assert [column["name"] for column in columns] == ["length", "width"]
    assert columns[0]["mean"] == pytest.approx(50, abs=5)
    card = (tmp_path / "rings/README.md").read_text()
    assert "| columns | length, width |" in card
    assert "(value - mean) / std" in card
    assert not re.search(r"image|grey|dequantisation|None", card)


def test_a_table_has_no_levels(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(study() | {"datasets": {"rings": {"levels": 8}}}))
    with pytest.raises(ConfigError, match=r"datasets\.rings\.levels: a table has no grey levels"):
        Params(tmp_path / "params.yaml")
