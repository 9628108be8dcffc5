"""`acf toy`: a few steps from the command line to the files, the same for the same seed, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import acf
from acf.data.toy_densities import TOYS
from acf.data.toy_density import square
from acf.errors import ConfigError
from acf.evaluation import toys
from acf.stages import toy as stage
from acf.stages.toy import toy, toy_names
from tests.test_cli import in_process

SMALL: dict[str, Any] = {"blocks": [2], "idim": 8}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flows of two small blocks, few points and a coarse grid, so that it takes no time."""
    whole = stage.model_settings
    monkeypatch.setattr(stage, "model_settings", lambda *arguments: whole(*arguments).model_copy(update=SMALL))
    for name, value in {"HELD_OUT": 200, "SHOWN": 100, "STEP": 0.15}.items():
        monkeypatch.setattr(toys, name, value)


def metrics(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.usefixtures("small")
def test_a_toy_writes_picture_samples_numbers_and_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy("circles", steps=20, device="cpu", to=tmp_path)
    folder = tmp_path / "circles"
    assert {path.name for path in folder.iterdir()} == {"density.png", "samples.csv", "metrics.json", "model"}
    found = metrics(folder)
    flow = acf.load(folder / "model")
    assert acf.certify(flow).worst == pytest.approx(found["certificate"]["worst"])
    assert found["certificate"]["worst"] < 1
    grid = square(0.15)
    with torch.no_grad():
        total = float(flow.log_prob(grid.float()).double().exp().sum()) * 0.15**2
    assert found["integral"] == pytest.approx(total, rel=1e-4) == pytest.approx(1, abs=0.03)
    x, _ = TOYS["circles"].sample(200, torch.Generator().manual_seed(2**31))
    with torch.no_grad():
        likelihood = flow.log_prob(x.float()).double()
    assert found["log_likelihood"]["mean"] == pytest.approx(float(likelihood.mean()), abs=1e-4)
    gap = TOYS["circles"].log_prob(x) - likelihood
    assert found["divergence"]["mean"] == pytest.approx(float(gap.mean()), abs=1e-4)
    assert found["divergence"]["mean"] > 0
    assert found["entropy"] == TOYS["circles"].entropy()
    samples = (folder / "samples.csv").read_text().splitlines()
    assert (samples[0], len(samples)) == ("x,y", 101)
    said = capsys.readouterr().out
    assert "step 20, log-likelihood -" in said
    assert f"wrote {folder}" in said


@pytest.mark.usefixtures("small")
def test_the_same_seed_has_the_same_model_and_another_has_another(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        toy("circles", 3, seed, "cpu", tmp_path / name)
    one, two, three = (tmp_path / name / "circles" for name in ("one", "two", "three"))
    for file in ("model/model.safetensors", "samples.csv", "density.png"):
        assert (one / file).read_bytes() == (two / file).read_bytes() != (three / file).read_bytes()
    assert metrics(one)["log_likelihood"] == metrics(two)["log_likelihood"]


@pytest.mark.usefixtures("small")
def test_a_conditional_toy_has_a_density_of_each_part(tmp_path: Path) -> None:
    toy("circles", 20, device="cpu", to=tmp_path, conditional=True)
    folder = tmp_path / "circles-conditional"
    flow, found = acf.load(folder / "model"), metrics(folder)
    assert flow.config.condition.classes == 2
    x, labels = TOYS["circles"].sample(200, torch.Generator().manual_seed(2**31))
    with torch.no_grad():
        likelihood = flow.log_prob(x.float(), labels).double()
    assert found["log_likelihood"]["mean"] == pytest.approx(float(likelihood.mean()), abs=1e-4)
    assert found["entropy"] == TOYS["circles"].entropy(of_parts=True)
    samples = (folder / "samples.csv").read_text().splitlines()
    assert (samples[0], len(samples)) == ("x,y,label", 201)
    with pytest.raises(ConfigError, match="has one part"):
        toy("swissroll", 3, device="cpu", to=tmp_path, conditional=True)


@pytest.mark.usefixtures("small")
def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "circles" / "thesis.tex"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        toy("circles", 3, device="cpu", to=tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["circles", "thesis.tex"]
    (mine.parent / "metrics.json").write_text("{}")  # beside a toy, too
    with pytest.raises(ConfigError, match="holds other files"):
        toy("circles", 3, device="cpu", to=tmp_path)


@pytest.mark.usefixtures("small")
def test_an_interrupted_toy_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy("circles", 2, device="cpu", to=tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(toys, "measure_toy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        toy("circles", 2, seed=5, device="cpu", to=tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_all_conditional_toys_have_several_parts() -> None:
    assert set(TOYS) - set(toy_names("all", conditional=True)) == {"swissroll"}


def test_names() -> None:
    assert toy_names("all") == list(TOYS)
    assert toy_names("rings") == ["rings"]
    for name in (None, "ring"):
        with pytest.raises(ConfigError, match="8gaussians, moons"):
            toy_names(name)


def test_the_command_shows_names_and_refuses_unknown_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert in_process(monkeypatch, "toy", "--list") == 0
    assert capsys.readouterr().out.split() == list(TOYS)
    assert in_process(monkeypatch, "toy", "moon") == 1
    assert capsys.readouterr().err.startswith("error: unknown toy 'moon'; known: 8gaussians")
    assert not list(tmp_path.iterdir())
