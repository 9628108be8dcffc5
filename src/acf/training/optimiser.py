"""Optimiser and learning rate."""

import math

import torch
from torch import nn

from acf.settings.config import TrainingConfig


def build_optimiser(module: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Return Adam (arXiv 1412.6980) over all parameters, with decoupled weight decay (arXiv 1711.05101).

    All parameters change by one operation. Where the optimiser's attribute `found_inf` is a tensor that is 1, a step
    changes neither parameters nor state.
    """
    return torch.optim.AdamW(
        module.parameters(),
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True,
    )


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Return the learning rate of step 0, 1, ..., steps - 1.

    With r = `learning_rate`, w = `warmup_steps` and n = `steps` it is r (step + 1) / w while step < w. Afterwards it is
    r under the schedule `constant`, and r (1 + cos(pi (step - w) / (n - w))) / 2 under `cosine`, which would be 0 at
    step n.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Give all parameters of `optimiser` the learning rate `rate`."""
    for group in optimiser.param_groups:
        group["lr"] = rate
