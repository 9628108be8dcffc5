"""Accuracy, cross-entropy and calibration error, on cases whose values are known."""

import math

import numpy as np
import pytest
import torch

import acf
from acf.evaluation.calibration import (
    BINS,
    calibration_error,
    class_log_probabilities,
    classification,
    reliability,
)
from acf.flows.classifying import ClassifyingFlow
from acf.flows.dequantise import dequantise
from acf.reporting.schemas import Classification


def test_calibration_error_of_known_cases() -> None:
    always = np.ones(10)
    assert calibration_error(np.full(10, 0.8), np.array([1] * 8 + [0] * 2)) == pytest.approx(0)
    assert calibration_error(always, np.array([1] * 7 + [0] * 3)) == pytest.approx(0.3)
    assert calibration_error(np.full(10, 0.55), np.zeros(10)) == pytest.approx(0.55)
    # Two bins: |0.9 - 1| of 6 images and |0.5 - 0.25| of 4.
    confidence = np.array([0.9] * 6 + [0.5] * 4)
    assert calibration_error(confidence, np.array([1.0] * 6 + [1, 0, 0, 0])) == pytest.approx(0.6 * 0.1 + 0.4 * 0.25)
    # Within a bin gaps of both signs cancel, between bins they do not.
    assert calibration_error(np.array([0.61, 0.65]), np.array([0.26, 1.0])) == pytest.approx(0, abs=1e-12)
    assert calibration_error(np.array([0.52, 0.98]), np.array([1.0, 0.5])) == pytest.approx((0.48 + 0.48) / 2)


def test_bins_are_open_below_and_closed_above() -> None:
    edges = np.array([1 / BINS, np.nextafter(1 / BINS, 1), 1.0])
    assert [entry["images"] for entry in reliability(edges, np.array([1.0, 0.0, 1.0]))] == [1, 1, 1]
    found = reliability(np.array([0.95, 0.97, 0.2]), np.array([1.0, 0.0, 1.0]))
    assert found == [
        {"images": 1, "confidence": 0.2, "accuracy": 1.0},
        {"images": 2, "confidence": pytest.approx(0.96), "accuracy": 0.5},
    ]


def test_numbers_of_a_classifier() -> None:
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.6, 0.3, 0.1]]).double()
    labels = torch.tensor([0, 1, 0, 1])
    numbers, of_images = classification(probabilities.log(), labels)
    assert of_images["correct"].tolist() == [1, 1, 0, 0]
    log_probs = [math.log(p) for p in (0.7, 0.8, 0.3, 0.3)]
    assert of_images["label_log_prob"].tolist() == pytest.approx(log_probs)
    assert numbers["accuracy"] == 0.5
    assert numbers["accuracy_se"] == pytest.approx(math.sqrt(1 / 3) / 2)
    assert numbers["cross_entropy"] == pytest.approx(-sum(log_probs) / 4)
    assert numbers["calibration_error"] == pytest.approx((0.3 + 0.2 + 0.4 + 0.6) / 4)
    Classification.model_validate(numbers)
    with pytest.raises(ValueError, match="calibration_error is 0"):
        Classification.model_validate(numbers | {"calibration_error": 0.0})


def test_the_error_of_a_calibrated_model_is_at_its_floor() -> None:
    """Labels drawn from the probabilities themselves; confident ones that are wrong are far above it."""
    generator = torch.Generator().manual_seed(0)
    said = (torch.randn(2000, 5, generator=generator, dtype=torch.float64) * 2).log_softmax(1)
    labels = torch.multinomial(said.exp(), 1, generator=generator)[:, 0]
    numbers, _ = classification(said, labels)
    assert abs(numbers["calibration_error"] - numbers["calibration_error_floor"]) < 4 * numbers["calibration_error_se"]
    assert 0 < numbers["calibration_error_floor"] < 0.03
    sure, _ = classification((3 * said).log_softmax(1), labels)
    assert sure["calibration_error"] > sure["calibration_error_floor"] + 10 * sure["calibration_error_se"]


def test_probabilities_are_means_over_draws_of_the_noise() -> None:
    torch.manual_seed(0)
    flow = acf.build({"shape": (1, 4, 4), "levels": 4, "blocks": [1], "idim": 4, "fc_blocks": 0, "classes": 3}).eval()
    assert isinstance(flow, ClassifyingFlow)
    torch.nn.init.normal_(flow.heads.last.weight, std=0.3)
    images = torch.randint(0, 4, (5, 1, 4, 4), dtype=torch.uint8)
    found = class_log_probabilities(flow, images, 2, 3, torch.Generator().manual_seed(1))
    noise = torch.Generator().manual_seed(1)
    draws = [flow.classify(dequantise(images, 4, noise)).double().softmax(1) for _ in range(2)]
    assert not torch.allclose(*draws, atol=1e-3)
    torch.testing.assert_close(found, torch.stack(draws).mean(0).log(), rtol=1e-5, atol=1e-6)
