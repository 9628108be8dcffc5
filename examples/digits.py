"""The digits of scikit-learn as tensors, for the examples beside this file."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor

LEVELS = 17
"""Number of grey levels of the images."""


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return images (N, 1, 8, 8), integers 0 to 16, and labels (N,), first of training, then of testing."""
    data = load_digits()
    order = torch.randperm(len(data.images), generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(data.images).to(torch.uint8).unsqueeze(1)[order]
    labels = torch.from_numpy(data.target).long()[order]
    return images[:1500], labels[:1500], images[1500:], labels[1500:]


def dequantised(images: Tensor) -> Tensor:
    """Return (k + u) / 17 with uniform noise u, values in [0, 1): a density of these bounds that of the images."""
    return ((images + torch.rand(images.shape, device=images.device)) / LEVELS).clamp_max(
        1 - torch.finfo(torch.float32).eps
    )
