"""A study on images that are averaged when they are loaded, through all stages: only their source is prepared."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

import acf
from acf.cli import app
from acf.data import load
from acf.data.prepared.tensors import Images
from acf.evaluation.metrics import evaluate_flow
from acf.flows.record import CARD, read_record
from acf.settings.params import Params, Run
from acf.stages.analyse import analyse
from acf.stages.baselines import baselines
from acf.stages.evaluate import evaluate
from acf.stages.export import export
from acf.stages.report import report
from acf.stages.sample import sample
from acf.stages.train import train
from tests.undrawn import leave_out_figures

pytestmark = pytest.mark.usefixtures("code_hashed_once")
RUN = Run("digits", "acf-l2", 0)
SAID = "every value the mean of 2 x 2 pixels, rounded to the nearest grey level, halves up"


@pytest.fixture
def root(study: Callable[..., Path]) -> Path:
    """The tiny study on digits, of which models see 4x4 pixels."""
    root = study()
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["datasets"]["digits-4"] = {"source": "digits", "average": 2}
    params["experiments"]["digits"] |= {"dataset": "digits-4", "variants": {"acf-l2": {}}}
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    return root


def test_all_stages_see_the_averaged_images(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(*RUN, "cpu", root)
    flow = acf.load(root / "models" / RUN.folder)
    assert (flow.shape, flow.config.levels) == ((1, 4, 4), 17)
    assert read_record(root / "models" / RUN.folder)["dataset"] == "digits-4"
    evaluate(*RUN, "cpu", root)
    metrics = json.loads((root / "results" / RUN.folder / "metrics.json").read_text())
    assert metrics["dataset"] == "digits-4"
    averaged = torch.nn.functional.avg_pool2d(load("digits", "test", root / "data")[:24].double(), 2)
    seen = Images((averaged + 0.5).floor().to(torch.uint8), 17)
    again, _ = evaluate_flow(flow, seen, Params(root / "params.yaml").evaluation("digits"))
    assert metrics["bits_per_dim"] == pytest.approx(again["bits_per_dim"], abs=1e-6)
    baselines("digits", root)
    histogram = json.loads((root / "results/digits/baselines.json").read_text())["baselines"]["histogram"]
    assert histogram["parameters"] == 16 * 16, "of 16 pixels with 17 levels each"
    sample(*RUN, "cpu", root)
    analyse("densities", RUN, "cpu", root)
    leave_out_figures(monkeypatch)
    report("digits", root)
    page, table = ((root / "reports/digits" / name).read_text() for name in ("index.html", "table.md"))
    for text in (page, table):
        assert SAID in text
        assert "Results are not comparable with results on digits, published ones included." in text
    assert "acf prepare --dataset digits\n" in page
    export(RUN, root / "exported", root=root)
    assert SAID in (root / "exported" / CARD).read_text()
    assert [path.name for path in (root / "data").iterdir() if path.name != ".downloads"] == ["digits"]
    monkeypatch.chdir(root)
    verified = CliRunner().invoke(app, ["data", "verify", "digits-4"])
    assert verified.output == "digits: content verified, 1500 train, 297 test images\n"
    assert "already prepared" in CliRunner().invoke(app, ["prepare", "--dataset", "digits-4"]).output
