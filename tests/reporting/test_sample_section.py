"""The sections on samples: what their sentences say, from invented numbers."""

import math
import random
from typing import Any

import pytest
from pydantic import ValidationError

from acf.reporting.sampled_files import SamplesFile
from acf.reporting.sections.sample_section import SampledModel, sample_sections, share_closer, share_error
from acf.settings.params import Run

PICTURES = ("samples", "temperatures", "nearest", "reconstructions")


def content(distances: list[float], changed: int = 0, seed: int = 0) -> dict[str, Any]:
    test = [0.5 + 0.01 * i for i in range(40)]
    return {
        **{"experiment": "digits", "dataset": "digits", "variant": "resflow", "seed": seed, "settings": {}},
        "temperatures": [
            {"temperature": 1.0, "mean": 0.3, "spread": 0.21 + 0.02 * seed},
            {"temperature": 0.7, "mean": 0.3, "spread": 0.18},
        ],
        "test": {"mean": 0.3, "spread": 0.231},
        "nearest": {
            "training_images": 1500,
            "samples": {"distances": distances, "places": [1] * len(distances)},
            "test": {"distances": test, "places": [0] * 40},
        },
        "reconstructions": {
            **{"largest": [1e-6, 3e-6], "mean": [1e-7, 2e-7], "changed": [0, changed], "block_bound": [1e-3, 2e-3]},
        },
        **{"seconds": 1.0, "device": "cpu", "train_recipe": "t", "recipe": "r", "versions": {}},
    }


def model(variant: str, distances: list[float], changed: int = 0, seed: int = 0) -> SampledModel:
    pictures = {name: f"{name} {variant}".encode() for name in PICTURES} if seed == 0 else {}
    found = SamplesFile.model_validate(content(distances, changed, seed))
    return SampledModel(Run("digits", variant, seed), found, pictures)


FAR = [1.0 + 0.01 * i for i in range(40)]
NEAR = [0.1 + 0.01 * i for i in range(40)]


def test_copies_are_suspected_where_samples_are_closer_than_test_images() -> None:
    far = sample_sections({"resflow": [model("resflow", FAR)]})[2]
    assert far.sentences[0].startswith("No flow's samples lie closer")
    assert far.tables[0].rows[1] == ["resflow", "1.195", "1.000", "0", "0.00"]
    near = sample_sections({"resflow": [model("resflow", FAR)], "acf-l2": [model("acf-l2", [0.0, *NEAR[1:]])]})[2]
    assert near.sentences[0].startswith("Samples of acf-l2 lie closer")
    assert near.tables[0].rows[2][2:4] == ["0.000", "1"]


def test_sentences_have_the_numbers_of_all_seeds() -> None:
    models = {"resflow": [model("resflow", FAR), model("resflow", FAR, changed=2, seed=1)], "acf-l2": []}
    samples, temperatures, _, reconstructions = sample_sections(models)
    assert "resflow from 0.220 to 0.180; that of as many test images is 0.231" in temperatures.sentences[0]
    assert "3.0e−6 (resflow); 2 values change grey level" in reconstructions.sentences[0]
    assert reconstructions.tables[0].rows == [["resflow", "3.0e−6", "1.5e−7", "2", "2.0e−3"]]
    assert [figure.name for figure in samples.figures] == ["samples-resflow"]
    for section in sample_sections({"resflow": [model("resflow", FAR)]}):
        assert [figure.png for figure in section.figures] == [f"{section.name} resflow".encode()]
        assert all(figure.svg is None for figure in section.figures)
    assert sample_sections({"resflow": []}) == []


def test_the_share_of_closer_samples_has_the_stated_error() -> None:
    draw = random.Random(0)
    shares = [share_closer([draw.random() for _ in range(30)], [draw.random() for _ in range(20)]) for _ in range(2000)]
    mean = sum(shares) / len(shares)
    deviation = math.sqrt(sum((share - mean) ** 2 for share in shares) / len(shares))
    assert mean == pytest.approx(0.5, abs=0.01)
    assert deviation == pytest.approx(share_error(30, 20), rel=0.06)
    assert share_closer([1.0, 1.0], [1.0]) == 0.5


def test_lists_of_different_lengths_are_refused() -> None:
    wrong = content(FAR)
    wrong["reconstructions"]["mean"] = [1.0]
    with pytest.raises(ValidationError, match="different lengths"):
        SamplesFile.model_validate(wrong)
