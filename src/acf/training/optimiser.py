"""Optimiser and learning rate."""

import math

import torch
from torch import nn

from acf.settings.config import TrainingConfig


def build_optimiser(module: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Adam; with `weight_decay` above 0 its decoupled form (arXiv 1711.05101)."""
    return torch.optim.AdamW(
        module.parameters(),
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
    )


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Learning rate of step 0, 1, ...: linear warm-up, then constant or half a cosine down to 0 at the last step."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
