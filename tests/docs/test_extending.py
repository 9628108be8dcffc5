"""The examples of docs/extending.md are complete and work as they stand there."""

import re
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import acf.registry
from acf.data.prepared.tensors import Images
from acf.data.sources.registered import dataset_source
from acf.evaluation.analysis import Analysed
from acf.flows.dequantise import bits_per_dim_of
from acf.registry import ANALYSES, resolve
from acf.reporting.analysis_files import part_of
from acf.reporting.page_parts import AnalysedModel
from acf.settings import analysis_config
from acf.settings.config import EvaluationConfig
from acf.settings.params import Params, Run
from acf.stages.prepare import prepare
from acf.training.tasks.task import task_of
from tests.evaluation.small_flow import LEVELS, small_flow
from tests.training.trainers import SMALL, trainer

PAGE = Path(__file__).parents[2] / "docs/extending.md"


@dataclass(frozen=True)
class Block:
    """Code of the page: its language, what its title says of its place, and itself."""

    language: str
    title: str
    code: str


def blocks(section: str) -> list[Block]:
    """The code below a heading."""
    _, _, text = PAGE.read_text(encoding="utf-8").partition(f"\n## {section}\n")
    found = re.findall(r'```(\w+)(?: title="([^"]*)")?\n(.*?)```', text.partition("\n## ")[0], re.DOTALL)
    assert found, section
    return [Block(*block) for block in found]


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """Do what a section says: put its files and lines in place, and run what has no place; return the names of that."""

    def add(section: str) -> dict[str, Any]:
        names: dict[str, Any] = {}
        for block in blocks(section):
            place, _, inside = block.title.partition(", in ")
            module = place.removeprefix("src/").removesuffix(".py").replace("/", ".")
            if block.language != "python":
                continue
            if module == "acf.registry":
                for name, target in eval(f"{{{block.code}}}").items():
                    monkeypatch.setitem(getattr(acf.registry, inside), name, target)
            elif module == "acf.settings.analysis_config":
                add_to_settings(block.code, inside)
            elif module:
                made = types.ModuleType(module)
                monkeypatch.setitem(sys.modules, module, made)
                exec(block.code, made.__dict__)
            else:
                exec(block.code, names)
        return names

    def add_to_settings(code: str, section: str) -> None:
        if section:
            code = f"class {section}({section}):\n    {code}"
        space = dict(vars(analysis_config))
        exec(code, space)
        for name in set(space) - {"__builtins__"}:
            if space[name] is not vars(analysis_config).get(name):
                monkeypatch.setattr(analysis_config, name, space[name], raising=False)

    return add


@pytest.mark.parametrize("section", ["A layer", "An attention"])
def test_a_layer_and_an_attention_are_used_by_flows(added: Callable[[str], dict[str, Any]], section: str) -> None:
    assert isinstance(added(section)["flow"], acf.Flow)


def test_an_attention_is_1_lipschitz(added: Callable[[str], dict[str, Any]]) -> None:
    attention = added("An attention") and resolve(acf.registry.ATTENTIONS, "pooled", "attention")(4, 2)
    torch.nn.init.constant_(attention.share, 0.7)
    found = acf.lipschitz.attack.largest_gain(attention.eval(), (4, 2, 2), steps=10)
    assert found.ratio is not None
    assert 0.5 < found.ratio <= 1


def test_a_task_is_trained(added: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    added("A task")
    run = trainer(tmp_path, SMALL, task={"kind": "mirrored"}, steps=4)
    run.run()
    assert run.history.rows[-1]["validation_bits_per_dim"] > 0
    task, x = task_of(run.config), torch.rand(2, *run.flow.shape)
    torch.manual_seed(0)
    one = task.measure(run.flow.eval(), x, None, None)["bits_per_dim"]
    torch.manual_seed(0)
    both = [bits_per_dim_of(run.flow.log_prob(image), run.flow.config) for image in (x, x.flip(-1))]
    torch.testing.assert_close(one, (both[0] + both[1]) / 2)


def test_a_data_set_is_prepared(
    added: Callable[[str], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added("A data set")
    monkeypatch.setenv("HOME", str(tmp_path))
    for kind in ("old", "young"):
        (tmp_path / "faces" / kind).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (70 + i, 90), (i, 0, 0)).save(tmp_path / f"faces/{kind}/{i}.jpg")
    np.save(tmp_path / "scans.npy", np.full((10, 16, 16), 31, np.uint8))
    assert prepare("faces", tmp_path / "data").counts == {"train": 18, "test": 2}
    manifest = prepare("scans", tmp_path / "data")
    assert (manifest.shape, manifest.levels) == ((1, 16, 16), 32)
    rows = ["voltage,current,day", *(f"{230 + i % 3},{i / 7},{i}" for i in range(20))]
    (tmp_path / "power.csv").write_text("\n".join(rows) + "\n")
    manifest = prepare("power", tmp_path / "data")
    assert (manifest.shape, manifest.counts) == ((2,), {"train": 18, "test": 2})
    assert dataset_source("stl10").shape == (3, 96, 96)
    (keys,) = (yaml.safe_load(block.code) for block in blocks("A data set") if block.language == "yaml")
    assert set(keys) == {"faces", "scans", "stl10", "power"}


def test_a_variant_and_an_experiment_are_read_from_params(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    params = yaml.safe_load((PAGE.parents[1] / "params.yaml").read_text(encoding="utf-8"))
    for block in blocks("A variant, an experiment"):
        params[block.title.partition(", in ")[2]].update(yaml.safe_load(block.code))
    path.write_text(yaml.safe_dump(params))
    read = Params(path)
    settings = read.resolve("digits-wide", "acf-clip-wide")
    assert (settings.training.steps, settings.training.learning_rate) == (20, 5e-4)
    assert settings.model.attention.kind == "clip"
    assert Run("digits-wide", "acf-clip-wide", 1) in read.runs("digits-wide")


def test_an_analysis_finds_what_its_section_shows(added: Callable[[str], dict[str, Any]]) -> None:
    added("An analysis")
    config = analysis_config.AnalysesConfig.model_validate({"latents": {"images": 8}}).latents  # type: ignore[attr-defined]
    flow, images = small_flow(torch.float32)
    found = resolve(ANALYSES, "latents", "analysis")(
        flow, Analysed(Images(images, LEVELS), Images(images, LEVELS), EvaluationConfig()), config
    )
    part = part_of("latents")
    model = AnalysedModel(Run("digits", "resflow", 0), part.form.model_validate(found.content), {})
    section = part.section({"resflow": [model], "acf-l2": []}, {"resflow": None}, {})
    assert section.tables[0].rows[0][0] == "resflow"
    assert found.content["mean"] > 0
    assert f"{found.content['mean']:.1f}"[:2] in section.tables[0].rows[0][1]
