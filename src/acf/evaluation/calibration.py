"""How well the classification heads of a flow tell labels: accuracy, cross-entropy and calibration."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acf.data.prepared.tensors import Images, Vectors
from acf.evaluation.likelihood import check_samples, dequantised
from acf.flows.classifying import ClassifyingFlow

BINS = 15
"""Intervals of confidence, of equal width."""
RESAMPLES = 1000
"""Of the bootstrap, and of the labels that are drawn for the floor."""


@torch.no_grad()
def class_log_probabilities(
    flow: ClassifyingFlow, images: Images | Vectors | Tensor, draws: int, batch_size: int, generator: torch.Generator
) -> Tensor:
    """Return log p(y | k) in nats of every class y, (N, K) in float64 on the CPU.

    With grey levels k and u uniform in [0, 1)^D it is the logarithm of the mean over `draws` of
    p(y | (k + u) / levels): what the model says of an image is its mean over the noise of dequantisation.

    Args:
        flow: with classification heads, in evaluation mode.
        images: uint8 (N, C, H, W), or vectors (N, D).
        draws: number of draws per image.
        batch_size: number of images at a time.
        generator: source of the noise, on the CPU.

    Raises:
        DataError: the images have the wrong type or shape.
    """
    check_samples(flow, images[:0])
    parameter = next(flow.parameters())
    of_draws = []
    for _ in range(draws):
        batches = dequantised(images, flow.config.levels, generator, batch_size, parameter.dtype)
        logits = [flow.classify(x.to(parameter.device)).cpu().double() for x in batches]
        of_draws.append(torch.cat(logits).log_softmax(1))
    return torch.stack(of_draws).logsumexp(0) - math.log(draws)


def classification(
    log_probabilities: Tensor, labels: Tensor, seed: int = 0
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the part of metrics.json on labels, and what images.csv has of every image.

    `accuracy` is the share of images whose most probable class is their label, `cross_entropy` the mean of
    -log p(label) in nats; their standard errors are over images. `calibration_error` is the expected calibration error
    of arXiv 1706.04599, sum over bins of (images in the bin / N) |accuracy - mean confidence|, with `BINS` bins of
    equal width of the confidence, the probability of the most probable class; `calibration_error_se` is the standard
    deviation over `RESAMPLES` bootstrap samples of the images. A sum of absolute values is above 0 by chance alone:
    `calibration_error_floor` is the mean over `RESAMPLES` draws of what a model would have that is right with exactly
    these confidences. `bins` has `images`, `confidence` and `accuracy` of each bin with images.

    Args:
        log_probabilities: of every class, (N, K), in nats.
        labels: (N,), int64.
        seed: of bootstrap and floor.

    Returns:
        The numbers, and per image `correct`, 1 or 0, and `label_log_prob`, log p(label) in nats.
    """
    of_labels = log_probabilities.gather(1, labels[:, None])[:, 0]
    highest, predicted = log_probabilities.max(1)
    correct = (predicted == labels).double()
    sure, right = highest.exp().clamp(max=1).numpy(), correct.numpy()
    generator = np.random.default_rng(seed)
    chosen = (generator.integers(len(sure), size=len(sure)) for _ in range(RESAMPLES))
    resampled = [calibration_error(sure[index], right[index]) for index in chosen]
    calibrated = [calibration_error(sure, generator.random(len(sure)) < sure) for _ in range(RESAMPLES)]
    numbers = {
        "classes": log_probabilities.shape[1],
        **_with_error("accuracy", correct),
        **_with_error("cross_entropy", -of_labels),
        "calibration_error": calibration_error(sure, right),
        "calibration_error_se": float(np.std(resampled, ddof=1)),
        "calibration_error_floor": float(np.mean(calibrated)),
        "bins": reliability(sure, right),
    }
    return numbers, {"correct": correct, "label_log_prob": of_labels}


def calibration_error(confidence: NDArray[np.float64], correct: NDArray[Any]) -> float:
    """Return the expected calibration error (arXiv 1706.04599) of predictions with these confidences, both (N,)."""
    place = _bins(confidence)
    gaps = np.bincount(place, weights=confidence - correct, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def reliability(confidence: NDArray[np.float64], correct: NDArray[Any]) -> list[dict[str, float]]:
    """Return number of images, mean confidence and accuracy of every bin that has images, by confidence."""
    place = _bins(confidence)
    return [
        {
            "images": int(inside.sum()),
            "confidence": float(confidence[inside].mean()),
            "accuracy": float(correct[inside].mean()),
        }
        for inside in (place == number for number in range(BINS))
        if inside.any()
    ]


def _bins(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the number of the bin of each confidence: bin b holds those in (b / BINS, (b + 1) / BINS]."""
    return np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)


def _with_error(name: str, values: Tensor) -> dict[str, float]:
    return {name: float(values.mean()), f"{name}_se": float(values.std()) / math.sqrt(len(values))}
