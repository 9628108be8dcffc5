"""Everything that is measured of a flow: certificate, likelihood and reconstruction on test images."""

import time
from typing import Any

import torch
from torch import Tensor

from acf.data.prepared.tensors import Images
from acf.errors import TrainingError
from acf.evaluation.likelihood import dequantised, measure
from acf.evaluation.reconstruction import largest_reconstruction_error
from acf.flows.flow import Flow, certify
from acf.settings.config import EvaluationConfig


def evaluate_flow(flow: Flow, images: Images | Tensor, config: EvaluationConfig) -> dict[str, Any]:
    """Certify `flow`, then measure likelihood and reconstruction on uint8 `images` (N, C, H, W).

    Raises:
        NotContractiveError: a block is not proven contractive; names it.
        TrainingError: the likelihood is not finite.
    """
    certificate = certify(flow)
    certificate.require()
    flow.eval().use_evaluation_estimator(config.log_det)
    # Two streams: torch's global one draws the estimator's noise, the other the dequantisation's.
    torch.manual_seed(config.seed + 2**31)
    noise = torch.Generator().manual_seed(config.seed)
    started = time.perf_counter()
    likelihood = measure(flow, images, config.draws, config.batch_size, noise)
    seconds = time.perf_counter() - started
    if not torch.isfinite(likelihood.bits_per_dim).all():
        raise TrainingError("bits/dim is not finite on some test images; the model is broken, train it again")
    noise.manual_seed(config.seed)
    batches = dequantised(images, flow.config.levels, noise, config.batch_size)
    return likelihood.summary() | {
        "parameters": sum(p.numel() for p in flow.parameters()),
        "certificate": certificate.as_dict(),
        "reconstruction_error": largest_reconstruction_error(flow, batches),
        "reconstruction_images": len(images),
        "test_images": len(images),
        "draws": config.draws,
        "estimator": config.log_det.model_dump(mode="json"),
        "evaluate_seconds": round(seconds, 3),
        "images_per_second": round(config.draws * len(images) / seconds, 2),
    }
