"""Bits/dim of a model on held-out images while it trains."""

import math

import torch
from torch import Tensor

from acf.flows.dequantise import bits_per_dim_of, dequantise
from acf.flows.flow import Flow
from acf.runs.ranks import Ranks
from acf.settings.config import TrainingConfig
from acf.training.batches import require_levels
from acf.training.random_state import seeded


@torch.no_grad()
def validation_bits_per_dim(
    flow: Flow, images: Tensor, config: TrainingConfig, ranks: Ranks, device: torch.device
) -> Tensor:
    """Return the bits/dim (N,) of each image in float64 on the host, with training's estimator of log-determinants.

    The noise of dequantisation and estimator is the same in each call, and torch's generators are left as they were.
    Several processes compute different batches, the same bits as one.

    Args:
        flow: in evaluation mode, on `device`.
        images: uint8 (N, C, H, W) on the host.
        config: gives the number of images at a time and the estimator.
        ranks: the processes that share the work.
        device: where to compute.

    Raises:
        InputError: a value is not below the flow's levels.
    """
    require_levels(images, flow.config.grey_levels)
    flow.use_evaluation_estimator(config.log_det)
    values = {}
    for index, batch in enumerate(images.split(config.batch_size)):
        if index % ranks.number == ranks.rank:
            with seeded(index, device):
                x = dequantise(batch.to(device), flow.config.grey_levels)
                values[index] = bits_per_dim_of(flow.log_prob_unchecked(x), flow.config).cpu().double()
    flow.use_evaluation_estimator(flow.config.evaluation_log_det)
    by_batch = {index: of_batch for of_rank in ranks.of_all(values) for index, of_batch in of_rank.items()}
    return torch.cat([by_batch[index] for index in sorted(by_batch)])


def mean_and_standard_error(values: Tensor) -> tuple[float, float]:
    """Return the mean of `values` (N,) and std / sqrt(N), which is NaN for one value."""
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), error
