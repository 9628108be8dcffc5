"""What a task measures on held-out images while a model trains."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from acf.errors import TrainingError
from acf.flows.dequantise import dequantise
from acf.flows.flow import Flow
from acf.runs.ranks import Ranks
from acf.settings.config import TrainingConfig
from acf.training.batches import Batches, require_values
from acf.training.random_state import seeded
from acf.training.tasks.task import MEASURES, Task


@torch.no_grad()
def validation_measures(
    flow: Flow, task: Task, batches: Batches, config: TrainingConfig, ranks: Ranks, device: torch.device
) -> dict[str, Tensor]:
    """Return what `task` measures of each held-out image, (N,) in float64 on the host.

    Log-determinants are estimated as in training. The noise of dequantisation and estimator is the same in each call,
    and torch's generators are left as they were. Several processes compute different batches, the same bits as one.

    Args:
        flow: in evaluation mode, on `device`.
        task: what it is trained for.
        batches: has the images, uint8 (N, C, H, W), or vectors (N, D), on the host, and their labels.
        config: gives the number of images at a time and the estimator.
        ranks: the processes that share the work.
        device: where to compute.

    Raises:
        InputError: a value is not below the flow's levels, or not finite.
    """
    images, labels = batches.validation, batches.validation_labels
    require_values(images, flow.config.levels)
    flow.use_evaluation_estimator(config.log_det)
    values = {}
    for index, batch in enumerate(images.split(config.batch_size)):
        if index % ranks.number == ranks.rank:
            start = index * config.batch_size
            of_batch = None if labels is None else labels[start : start + len(batch)].to(device)
            with seeded(index, device):
                x = dequantise(batch.to(device), flow.config.levels)
                measured = task.measure(flow, x, of_batch, None)
                values[index] = {name: value.cpu().double() for name, value in measured.items()}
    flow.use_evaluation_estimator(flow.config.evaluation_log_det)
    by_batch = {index: of_batch for of_rank in ranks.of_all(values) for index, of_batch in of_rank.items()}
    return {name: torch.cat([by_batch[index][name] for index in sorted(by_batch)]) for name in task.measures}


def means_and_errors(measured: Mapping[str, Tensor], step: int) -> dict[str, tuple[float, float]]:
    """Return the mean of each measure's values (N,), and std / sqrt(N), which is NaN for one value.

    Raises:
        TrainingError: a mean is not finite; names it and `step`.
    """
    found = {name: mean_and_standard_error(values) for name, values in measured.items()}
    if wrong := [MEASURES[name] for name, (mean, _) in found.items() if not math.isfinite(mean)]:
        raise TrainingError(f"step {step}: validation {wrong[0]} is not finite")
    return found


def mean_and_standard_error(values: Tensor) -> tuple[float, float]:
    """Return the mean of `values` (N,) and std / sqrt(N), which is NaN for one value."""
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return float(values.mean()), error
