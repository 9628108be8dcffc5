"""The paper's experiments as params.yaml has them, small in `blocks` and `idim` only, from source files to bits/dim."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from _pytest.mark import ParameterSet

from acf.settings.params import Params
from acf.stages.baselines import baselines
from acf.stages.evaluate import evaluate
from acf.stages.prepare import prepare
from acf.stages.sample import sample
from acf.stages.train import train
from tests.data.sources import CASES, shrink

ROOT = Path(__file__).parents[2]
MAX_TOKENS = 256
"""Attention over more is slow on a CPU."""
LARGE = ("celebahq64", "celebahq256")
ALIKE = {"cifar10": "imagenet64", "svhn": "imagenet64", "imagenet32": "imagenet64"}
"""Colour images with the model of another experiment; tests/data/test_sources.py prepares all data sets."""
# Beside the model: as few steps and images as the fixtures have.
TRAINING = {"steps": 2, "warmup_steps": 1, "validation_images": 2, "validate_every": 2}


def study(name: str) -> dict[str, Any]:
    """params.yaml cut down to one experiment."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    experiment = params["experiments"][name]
    real = Params(ROOT / "params.yaml").resolve(name, "resflow").model
    experiment["model"] |= {"blocks": [1] * len(real.blocks), "idim": 8}
    experiment["training"] |= TRAINING
    experiment["evaluation"] |= {"images": 3, "batch_size": 4}
    experiment["sampling"] |= {"samples": 1, "reconstructions": 1}
    params["defaults"]["model"]["attention"]["every"] = 1
    experiment["variants"] = {variant: {} for variant in experiment["variants"]}
    params["experiments"] = {name: experiment}
    return params


def largest_map(name: str) -> int:
    """Positions of the largest maps with attention."""
    model = Params(ROOT / "params.yaml").resolve(name, "acf-l2").model
    side = CASES[name].images["train"].shape[-1] // (2 if model.squeeze_first else 1)
    sides = [side // 2**scale for scale in range(len(model.blocks))]
    return max(side**2 for side in sides if side**2 <= model.attention.max_tokens)


def cases() -> list[ParameterSet]:
    """Every data set with and without attention; slow are large ones, those like another, and later attentions."""
    found = []
    for name in sorted(CASES):
        for variant in Params(ROOT / "params.yaml").variants(name):
            quick = variant == "resflow" or (variant == "acf-l2" and largest_map(name) <= MAX_TOKENS)
            quick = quick and name not in LARGE and name not in ALIKE
            found.append(pytest.param(name, variant, marks=() if quick else pytest.mark.slow))
    return found


@pytest.mark.parametrize(("name", "variant"), cases())
def test_two_steps_and_an_evaluation(name: str, variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("ACF_MIRROR", str(tmp_path / "mirror"))
    CASES[name].write(CASES[name].images, tmp_path / "mirror")
    params = study(name)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    levels = prepare(name, tmp_path / "data").levels
    levels = params["datasets"][name].get("levels", levels)
    train(name, variant, 0, "cpu", tmp_path)
    config = json.loads((tmp_path / f"models/{name}/{variant}/seed0/config.json").read_text())
    assert config["certificate_worst"] < 1
    assert config["model"]["levels"] == levels == (32 if name.startswith("celeba") else 256)
    evaluate(name, variant, 0, "cpu", tmp_path)
    metrics = json.loads((tmp_path / f"results/{name}/{variant}/seed0/metrics.json").read_text())
    assert math.isfinite(metrics["bits_per_dim"])
    # Noise of this many levels costs at least its own entropy, and two steps teach little.
    assert 0.5 * math.log2(levels) < metrics["bits_per_dim"] < 4 * math.log2(levels)
    sample(name, variant, 0, "cpu", tmp_path)
    if variant == "resflow":
        baselines(name, tmp_path)
        measured = json.loads((tmp_path / f"results/{name}/baselines.json").read_text())
        assert measured["baselines"]["uniform"]["bits_per_dim"] == math.log2(levels)
        assert "too few" in measured["not_available"]["gaussian"]  # the fixtures have fewer images than values


def test_settings_of_the_paper() -> None:
    """arXiv 1906.02735, appendix E; what differs from the common settings."""
    params = Params(ROOT / "params.yaml")

    def of(name: str) -> Any:
        return params.resolve(name, "resflow")

    assert of("mnist").model.logit_alpha == 1e-6
    assert of("cifar10").training.horizontal_flips
    assert of("cifar10").model.blocks == [16, 16, 16]
    assert of("imagenet32").model.blocks == of("imagenet64").model.blocks == [32, 32, 32]
    assert of("imagenet64").model.factor_out
    assert of("imagenet64").model.squeeze_first
    assert of("celebahq64").model.blocks == [8] * 5
    assert of("celebahq64").training.horizontal_flips
    large = of("celebahq256")
    assert (large.model.blocks, large.model.activation, large.model.fc_blocks) == ([16] * 6, "elu", 0)
    assert (large.training.batch_size, large.training.accumulate, large.training.log_det.exact_terms) == (8, 5, 8)
    assert large.model.factor_out
    assert large.model.squeeze_first
    assert params.seen("celebahq256").levels == 32
