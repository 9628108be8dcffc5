"""The measurements that make up metrics.json: certificate, likelihood, reconstruction error and labels."""

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from acf.data.prepared.tensors import Images, Vectors
from acf.errors import TrainingError
from acf.evaluation.calibration import class_log_probabilities, classification
from acf.evaluation.likelihood import dequantised, measure
from acf.evaluation.reconstruction import largest_reconstruction_error
from acf.flows.classifying import ClassifyingFlow
from acf.flows.flow import Flow, certify
from acf.flows.forward_error import log_prob_error
from acf.settings.config import EvaluationConfig


class Evaluation(NamedTuple):
    """What was measured of a flow."""

    metrics: dict[str, Any]
    """A part of metrics.json; docs/architecture.md describes its keys."""
    per_image: dict[str, Tensor]
    """Bits/dim and its parts of each image, in the order of the images (`Likelihood.per_image`); of a flow with heads
    also what `acf.evaluation.calibration.classification` returns of each."""


FORWARD_ERROR_IMAGES = 16
"""The first images, of which the largest error of the forward map is reported."""


def evaluate_flow(
    flow: Flow, images: Images | Vectors | Tensor, config: EvaluationConfig, labels: Sequence[int] | None = None
) -> Evaluation:
    """Certify `flow`, then measure its bits/dim and reconstruction error on `images`, and how its heads tell labels.

    Args:
        flow: left in evaluation mode, with the estimator of log-determinants of `config`.
        images: uint8 (N, C, H, W), or vectors (N, D).
        config: number of draws per image, images at a time, seed of the noise, and the estimator.
        labels: the class of each image, (N,), for a flow with classification heads; None for one without.

    Raises:
        NotContractiveError: a block is not proven contractive; names it.
        ConvergenceError: the inverse of a block did not reach its accuracy; names it.
        DataError: the images have the wrong type or shape.
        TrainingError: the bits/dim or the class probabilities of an image are not finite.
    """
    certificate = certify(flow)
    certificate.require()
    flow.eval().use_evaluation_estimator(config.log_det)
    # The noise of dequantisation has a generator of its own, so it is the same whatever the estimator draws from the
    # global one; baselines see the same noise too.
    torch.manual_seed(config.seed + 2**31)
    noise = torch.Generator("cpu").manual_seed(config.seed)
    started = time.perf_counter()
    likelihood = measure(flow, images, config.draws, config.batch_size, noise)
    seconds = time.perf_counter() - started
    if not torch.isfinite(likelihood.bits_per_dim).all():
        raise TrainingError("bits/dim is not finite on some test images; the model is broken, train it again")
    noise.manual_seed(config.seed)
    batches = dequantised(images, flow.config.levels, noise, config.batch_size)
    metrics = likelihood.summary() | {
        "parameters": sum(p.numel() for p in flow.parameters()),
        "certificate": certificate.as_dict(),
        "reconstruction_error": largest_reconstruction_error(flow, batches),
        "reconstruction_images": len(images),
        "forward_error": _largest_forward_error(flow, images, noise, config.seed),
        "test_images": len(images),
        "draws": config.draws,
        "estimator": config.log_det.model_dump(mode="json"),
        "evaluate_seconds": round(seconds, 3),
        "images_per_second": round(config.draws * len(images) / seconds, 2),
    }
    if labels is None or not isinstance(flow, ClassifyingFlow):
        return Evaluation(metrics, likelihood.per_image())
    noise.manual_seed(config.seed)
    said = class_log_probabilities(flow, images, config.draws, config.batch_size, noise)
    if not torch.isfinite(said).all():
        raise TrainingError(
            "class probabilities are not finite on some test images; the model is broken, train it again"
        )
    found, of_images = classification(said, torch.tensor(labels), config.seed)
    return Evaluation({**metrics, "classification": found}, {**likelihood.per_image(), **of_images})


def _largest_forward_error(flow: Flow, images: Images | Vectors | Tensor, noise: torch.Generator, seed: int) -> float:
    """The largest `log_prob_error` of some images, in bits/dim; 0 where no block solves an equation."""
    noise.manual_seed(seed)
    few = images[:FORWARD_ERROR_IMAGES]
    (x,) = dequantised(few, flow.config.levels, noise, len(few), next(flow.parameters()).dtype)
    error = log_prob_error(flow, x.to(next(flow.parameters()).device))
    return float(error.max()) / (math.prod(flow.shape) * math.log(2))
