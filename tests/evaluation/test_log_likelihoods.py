"""Likelihoods of several sets of images: AUROC and errors against plain counts, and which images are measured."""

import itertools
import json
import math
from statistics import fmean

import pytest
import torch
from torch import Tensor

import acf
from acf.data.prepared.held_out import held_out_order
from acf.data.prepared.tensors import Images
from acf.evaluation.analyses.log_likelihoods import auroc, densities, image_sets
from acf.evaluation.analysis import Analysed
from acf.settings.analysis_config import DensitiesConfig
from acf.settings.config import EvaluationConfig
from acf.training.batches import Batches


def pictures(count: int, seed: int) -> Images:
    draw = torch.Generator().manual_seed(seed)
    return Images(torch.randint(17, (count, 1, 4, 4), generator=draw).to(torch.uint8), 17)


ANALYSED = Analysed(pictures(30, 0), pictures(12, 1), EvaluationConfig(batch_size=7), {"mnist": pictures(9, 2)})
CONFIG = DensitiesConfig(images=8, others=("noise", "shuffled", "mnist"))


def test_auroc_counts_pairs() -> None:
    inside, outside = torch.tensor([1.0, 2.0, 3.0, 3.0]), torch.tensor([2.0, 3.5, 0.5])
    pairs = [1.0 if one < other else 0.5 if one == other else 0.0 for one, other in itertools.product(inside, outside)]
    area, _ = auroc(inside, outside)
    assert area == pytest.approx(fmean(pairs))
    assert auroc(outside, inside)[0] == pytest.approx(1 - area)
    assert auroc(inside, inside)[0] == 0.5
    assert auroc(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0, 5.0])) == (1.0, 0.0)


def test_auroc_of_two_gaussians_and_the_spread_of_its_estimates() -> None:
    draw = torch.Generator().manual_seed(0)
    samples = [auroc(torch.randn(60, generator=draw), torch.randn(40, generator=draw) + 1.0) for _ in range(400)]
    areas, errors = zip(*samples, strict=True)
    expected = 0.5 * (1 + math.erf(1 / math.sqrt(2) / math.sqrt(2)))
    assert fmean(areas) == pytest.approx(expected, abs=0.01)
    assert fmean(errors) == pytest.approx(float(torch.tensor(areas).std()), rel=0.1)


def test_sets_have_the_images_that_they_are_said_to_have() -> None:
    sets = image_sets(ANALYSED, CONFIG)
    assert list(sets) == ["train", "test", "noise", "shuffled", "mnist"]
    assert {name: len(images) for name, images in sets.items()} == dict.fromkeys(sets, 8)
    assert torch.equal(sets["test"], ANALYSED.test[:8])
    assert torch.equal(sets["mnist"], ANALYSED.others["mnist"][:8])
    assert torch.equal(sets["shuffled"].flatten(1).sort(1).values, sets["test"].flatten(1).sort(1).values)
    assert not any(torch.equal(one, other) for one, other in zip(sets["shuffled"], sets["test"], strict=True))
    assert sets["noise"].dtype == torch.uint8
    assert int(sets["noise"].max()) == 16
    again = image_sets(ANALYSED, CONFIG)
    assert all(torch.equal(sets[name], again[name]) for name in sets)


def test_training_images_are_none_that_a_training_holds_out() -> None:
    distinct = torch.arange(30, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    analysed = Analysed(Images(distinct, 256), Images(distinct, 256), EvaluationConfig())
    held_out = Batches(distinct, 22, seed=3).validation

    def marks(images: Tensor) -> set[int]:
        return set(images[:, 0, 0, 0].tolist())

    train = marks(image_sets(analysed, DensitiesConfig(images=8))["train"])
    assert len(train) == 8
    assert not train & marks(held_out)
    assert train | marks(held_out) == set(range(30))
    assert sorted(held_out_order(30).tolist()) == list(range(30))


def test_numbers_are_those_of_the_images() -> None:
    torch.manual_seed(0)
    flow = acf.build({"shape": (1, 4, 4), "levels": 17, "blocks": [1], "idim": 4, "fc_blocks": 0}).eval()
    found = json.loads(json.dumps(densities(flow, ANALYSED, CONFIG).content, allow_nan=False))
    assert list(found["sets"]) == ["train", "test", "noise", "shuffled", "mnist"]
    values = {name: torch.tensor(it["bits_per_dim"], dtype=torch.float64) for name, it in found["sets"].items()}
    for name, it in found["sets"].items():
        assert len(values[name]) == 8
        assert it["mean"] == pytest.approx(float(values[name].mean()), abs=1e-6)
        assert it["se"] == pytest.approx(float(values[name].std()) / math.sqrt(8), abs=1e-6)
    assert found["gap"]["value"] == pytest.approx(float(values["test"].mean() - values["train"].mean()), abs=2e-6)
    assert found["gap"]["se"] == pytest.approx(math.hypot(found["sets"]["test"]["se"], found["sets"]["train"]["se"]))
    assert set(found["told_apart"]) == {"noise", "shuffled", "mnist"}
    for name, it in found["told_apart"].items():
        assert (it["auroc"], it["se"]) == pytest.approx(auroc(values["test"], values[name]))


@pytest.mark.parametrize("others", [("glow",), ("noise", "noise")])
def test_unknown_sets_are_refused(others: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"unknown set of images|named twice"):
        DensitiesConfig(others=others)
