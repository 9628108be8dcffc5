"""Bits/dim of a model on held-out images while it trains."""

import math

import torch
from torch import Tensor

from acf.flows.dequantise import bits_per_dim_of, dequantise
from acf.flows.flow import Flow
from acf.settings.config import TrainingConfig
from acf.training.batches import require_levels
from acf.training.random_state import seeded


@torch.no_grad()
def validation_bits_per_dim(flow: Flow, images: Tensor, config: TrainingConfig, device: torch.device) -> Tensor:
    """Return the bits/dim (N,) of each image in float64 on the host, with training's estimator of log-determinants.

    The noise of dequantisation and estimator is the same in each call, and torch's generators are left as they were.

    Args:
        flow: in evaluation mode, on `device`.
        images: uint8 (N, C, H, W) on the host.
        config: gives the number of images at a time and the estimator.
        device: where to compute.

    Raises:
        InputError: a value is not below the flow's levels.
    """
    require_levels(images, flow.config.levels)
    flow.use_evaluation_estimator(config.log_det)
    with seeded(0, device):
        batches = [
            bits_per_dim_of(flow.log_prob_of_pixels(dequantise(batch.to(device), flow.config.levels)), flow.config)
            for batch in images.split(config.batch_size)
        ]
    flow.use_evaluation_estimator(flow.config.evaluation_log_det)
    return torch.cat(batches).cpu().double()


def mean_and_standard_error(values: Tensor) -> tuple[float, float]:
    """Return the mean of `values` (N,) and std / sqrt(N), which is NaN for one value."""
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), error
