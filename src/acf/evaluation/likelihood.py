"""Bits/dim of images under a flow."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from acf.data.prepared.tensors import Images
from acf.errors import DataError
from acf.flows.dequantise import bits_per_dim_of, dequantise, dequantised
from acf.flows.flow import Flow

__all__ = ["Likelihood", "bits_per_dim", "dequantise", "dequantised", "measure"]


def check_images(flow: Flow, images: Tensor) -> None:
    """Do nothing if `images` are uint8 (B, C, H, W) of the flow's shape with values below its levels.

    Raises:
        DataError: anything else; says what was expected.
    """
    expected = f"uint8 images (B, {', '.join(map(str, flow.shape))})"
    if images.dtype != torch.uint8 or images.dim() != 4 or tuple(images.shape[1:]) != flow.shape:
        raise DataError(f"expected {expected}, got {images.dtype} {tuple(images.shape)}")
    levels = flow.config.levels
    if levels < 256 and images.numel() and int(images.max()) >= levels:
        raise DataError(f"expected {expected} with values below {levels}, got {int(images.max())}")


def bits_per_dim(flow: Flow, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Bits/dim of each image, (B,), from one uniform dequantisation draw.

    -log2 p(x) / D + log2(levels), x = (k + u) / levels; its mean over u bounds the negative log2-probability of the
    discrete image from above (arXiv 1511.01844). The log-determinant follows the flow's mode: an unbiased estimate.

    Args:
        flow: any mode; use `flow.eval()` for the estimator meant for measuring.
        images: uint8 (B, C, H, W), values below the flow's levels.
        generator: source of the dequantisation noise on the CPU; torch's global one by default.

    Raises:
        DataError: wrong type, shape or range.
    """
    check_images(flow, images)
    parameter = next(flow.parameters())
    x = dequantise(images.to(parameter.device), flow.config.levels, generator, parameter.dtype)
    return bits_per_dim_of(flow.log_prob(x), flow.config)


@dataclass(frozen=True)
class Likelihood:
    """Measured bits/dim: each (draws, images) in float64 on the CPU; the three parts add up to the whole."""

    log_prob_z: Tensor
    log_abs_det: Tensor
    dequantisation: float

    @property
    def bits_per_dim(self) -> Tensor:
        """All parts together."""
        return self.log_prob_z + self.log_abs_det + self.dequantisation

    def summary(self) -> dict[str, object]:
        """Mean, standard error over images, the share of it that more draws would remove, and the parts' means.

        The standard error is that of the mean over images of each image's mean over draws; it contains the noise of
        dequantisation and of the estimator, which are independent between images.
        """
        values = self.bits_per_dim
        draws, images = values.shape
        return {
            "bits_per_dim": float(values.mean()),
            "bits_per_dim_se": float(values.mean(0).std()) / math.sqrt(images) if images > 1 else None,
            "bits_per_dim_se_draws": math.sqrt(float(values.var(0).mean()) / (draws * images)) if draws > 1 else None,
            "parts": {
                "log_prob_z": float(self.log_prob_z.mean()),
                "log_abs_det": float(self.log_abs_det.mean()),
                "dequantisation": self.dequantisation,
            },
        }


@torch.no_grad()
def measure(flow: Flow, images: Images | Tensor, draws: int, batch_size: int, generator: torch.Generator) -> Likelihood:
    """Measure bits/dim of `images` with `draws` independent draws of dequantisation and estimator noise each.

    Args:
        flow: in evaluation mode.
        images: uint8 (N, C, H, W).
        draws: number of draws per image.
        batch_size: images at a time.
        generator: source of the dequantisation noise, on the CPU.
    """
    check_images(flow, images[:0])
    parameter = next(flow.parameters())
    unit = math.prod(flow.shape) * math.log(2)
    parts = torch.empty(2, draws, len(images), dtype=torch.float64)
    for draw in range(draws):
        start = 0
        for x in dequantised(images, flow.config.levels, generator, batch_size, parameter.dtype):
            here = slice(start, start + len(x))
            start += len(x)
            z, log_abs_det = flow(x.to(parameter.device))
            parts[0, draw, here] = -flow.base_log_prob(z).double().cpu() / unit
            parts[1, draw, here] = -log_abs_det.double().cpu() / unit
    return Likelihood(parts[0], parts[1], math.log2(flow.config.levels))
