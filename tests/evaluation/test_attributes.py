"""Attribute arithmetic: moves that are computed by hand, judges whose verdicts are known, and data without classes."""

import json
from dataclasses import replace

import pytest
import torch

from acf.data.prepared.labels import Labels
from acf.data.prepared.tensors import Images
from acf.errors import DataError
from acf.evaluation.analyses.attributes import attributes, targets
from acf.evaluation.analysis import Analysed
from acf.evaluation.likelihood import dequantise
from acf.reporting.sections.attributes_section import Attributes
from acf.settings.analysis_config import AttributesConfig
from acf.settings.config import EvaluationConfig
from tests.evaluation.small_flow import LEVELS, small_flow


def test_every_image_goes_to_another_class_and_all_of_them_evenly() -> None:
    own = torch.randint(3, (600,), generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([2, 5, 7])
    other = targets(classes[own], classes)
    assert not (other == classes[own]).any()
    for one in range(3):
        counts = other[own == one].bincount(minlength=8)[classes]
        assert counts[one] == 0
        assert counts.max() - counts.sort().values[1] <= 1


def halves(count: int, generator: torch.Generator) -> tuple[torch.Tensor, list[int]]:
    """Return noisy images (count, 1, 4, 4) of two classes, bright above or below."""
    labels = torch.arange(count) % 2
    images = torch.randint(0, 5, (count, 1, 4, 4), generator=generator)
    for label, rows in enumerate((slice(0, 2), slice(2, 4))):
        images[labels == label, :, rows] += 10
    return images.to(torch.uint8), labels.tolist()


def analysed(**changes: Labels) -> Analysed:
    generator = torch.Generator().manual_seed(1)
    (train, of_train), (test, of_test) = halves(30, generator), halves(6, generator)
    labels = Labels(train=of_train, test=of_test)
    evaluation = EvaluationConfig(batch_size=4)
    return replace(Analysed(Images(train, LEVELS), Images(test, LEVELS), evaluation, labels=labels), **changes)


CONFIG = AttributesConfig(alphas=[0.0, 1.0], images=5, train_images=20, pictured_images=2)


def test_moves_are_those_of_the_formula_and_judges_see_the_images() -> None:
    flow, _ = small_flow(torch.float64)
    material = analysed()
    found = attributes(flow, material, CONFIG)
    content = Attributes.model_validate(json.loads(json.dumps(found.content))).moved
    assert (content.images, content.train_images, content.classes) == (5, 20, 2)
    assert content.classifier.accuracy == 1
    train = dequantise(material.train[:20], LEVELS, torch.Generator().manual_seed(1), torch.float64)
    x = dequantise(material.test[:5], LEVELS, torch.Generator().manual_seed(0), torch.float64)
    f = {"latent": flow.transform, "pixels": lambda images: images.flatten(1)}
    back = {"latent": flow.inverse, "pixels": lambda points: points.view(-1, 1, 4, 4)}
    for space in f:
        values = f[space](train)
        step = values[1::2].mean(0) - values[0::2].mean(0)  # from class 0 to class 1
        moved = back[space](f[space](x) + torch.tensor([1, -1, 1, -1, 1]).double()[:, None] * step)
        known = (moved.clamp(0, 1 - 1e-12) * LEVELS).floor()
        differences = known.flatten(1)[:, None] - material.train[:20].flatten(1).double()
        expected = differences.norm(dim=2).min(1)
        judged = getattr(content, space)
        assert judged.distances[1] == pytest.approx(expected.values.tolist(), abs=1e-3)
        assert judged.neighbour[1] == ((expected.indices + torch.arange(5)) % 2 == 1).int().tolist()
        assert judged.neighbour[0] == judged.taken[0] == [0] * 5
        within = (moved >= 0) & (moved < 1)
        assert judged.outside == pytest.approx(float((~within).double().mean()) / 2, abs=1e-12)
    assert content.pixels.taken[1] == [1] * 5
    assert 0 < content.inverse_bound < 1e-6
    assert found.picture is not None
    assert found.picture.size == (2 * 5 + 1, 4 * 5 + 1)


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (Labels(), "the data set has no labels"),
        (Labels(train=[3] * 30, test=[0, 1, 2, 3, 4, 5]), "the training images are not of two classes"),
        (Labels(train=[0, 1] * 15, test=[0, 2, 3, 2, 3, 1]), "fewer than two test images are of the classes"),
    ],
)
def test_without_two_classes_there_is_a_reason_and_the_test_images_alone(labels: Labels, reason: str) -> None:
    flow, _ = small_flow(torch.float64)
    found = attributes(flow, analysed(labels=labels), CONFIG)
    assert found.content["arithmetic"] is None
    assert reason in found.content["reason"]
    Attributes.model_validate(dict(found.content))
    assert found.picture is not None
    assert found.picture.size == (2 * 5 + 1, 5 + 1)


def test_no_test_images_are_an_error() -> None:
    flow, _ = small_flow(torch.float64)
    nothing = replace(analysed(), test=Images(torch.zeros(0, 1, 4, 4, dtype=torch.uint8), LEVELS))
    with pytest.raises(DataError, match="needs a test image"):
        attributes(flow, nothing, CONFIG)
