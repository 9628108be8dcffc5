"""Reproducible random inputs, which leave torch's global generator alone."""

import torch
from torch import Tensor


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers in float64."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
