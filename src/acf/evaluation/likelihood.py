"""Bits/dim of images under a flow, and what it is made of."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from acf.data.prepared.tensors import Images, Vectors
from acf.errors import DataError
from acf.flows.dequantise import bits_per_dim_of, dequantise, dequantised
from acf.flows.flow import Flow

__all__ = ["Likelihood", "bits_per_dim", "dequantise", "dequantised", "measure"]


def check_images(flow: Flow, images: Tensor) -> None:
    """Do nothing if `images` are uint8 (B, C, H, W) of the flow's shape with values below its levels.

    Raises:
        DataError: type, shape or a value is another; says what was expected and what was given.
        InputError: the flow is on vectors.
    """
    levels = flow.config.grey_levels
    expected = f"uint8 images (B, {', '.join(map(str, flow.shape))})"
    if images.dtype != torch.uint8 or images.dim() != 4 or tuple(images.shape[1:]) != flow.shape:
        raise DataError(f"expected {expected}, got {images.dtype} {tuple(images.shape)}")
    if levels < 256 and images.numel() and int(images.max()) >= levels:
        raise DataError(f"expected {expected} with values below {levels}, got {int(images.max())}")


def check_samples(flow: Flow, samples: Tensor) -> None:
    """Do nothing if `samples` are images of the flow, as for `check_images`, or vectors (B, D) of it.

    Raises:
        DataError: type, shape or a value is another; says what was expected and what was given.
    """
    if flow.config.is_of_images:
        check_images(flow, samples)
    elif not samples.is_floating_point() or tuple(samples.shape[1:]) != flow.shape:
        raise DataError(
            f"expected vectors of real numbers (B, {flow.shape[0]}), got {samples.dtype} {tuple(samples.shape)}"
        )


def bits_per_dim(
    flow: Flow, images: Tensor, generator: torch.Generator | None = None, condition: Tensor | None = None
) -> Tensor:
    """Return the bits/dim (B,) of each image, from one draw of the dequantisation noise.

    With grey levels k, u uniform in [0, 1)^D, x = (k + u) / levels and D = C H W it is -log2 p(x) / D + log2(levels).
    Its mean over u is at least -log2 P(k) / D, where P(k) is the probability of the image's grey levels
    (arXiv 1511.01844). The log-determinant in log2 p(x) is an unbiased estimate.

    Args:
        flow: in evaluation mode it uses the estimator meant for measuring, in training mode that of training.
        images: uint8 (B, C, H, W), values below the flow's levels.
        generator: source of the dequantisation noise on the CPU; torch's global one by default.
        condition: c of each image, of a conditional flow, on the flow's device.

    Raises:
        DataError: the images have the wrong type, shape or range.
        InputError: the condition is missing or wrong, or the flow is on vectors.
    """
    check_images(flow, images)
    parameter = next(flow.parameters())
    x = dequantise(images.to(parameter.device), flow.config.grey_levels, generator, parameter.dtype)
    return bits_per_dim_of(flow.log_prob(x, condition), flow.config)


@dataclass(frozen=True)
class Likelihood:
    """The bits/dim of each image in each draw of the noise, as the sum of three terms.

    With D = C H W, or D values of a vector, and z = f(x):

    Attributes:
        log_prob_z: -log2 p(z) / D, (draws, images), float64 on the CPU.
        log_abs_det: -log2 |det dz/dx| / D, (draws, images), float64 on the CPU.
        dequantisation: log2(levels); 0 for vectors.
    """

    log_prob_z: Tensor
    log_abs_det: Tensor
    dequantisation: float

    @property
    def bits_per_dim(self) -> Tensor:
        """Sum of the three terms, (draws, images)."""
        return self.log_prob_z + self.log_abs_det + self.dequantisation

    def per_image(self) -> dict[str, Tensor]:
        """Return `bits_per_dim`, `log_prob_z` and `log_abs_det` of each image, (images,), as means over its draws."""
        terms = {"bits_per_dim": self.bits_per_dim, "log_prob_z": self.log_prob_z, "log_abs_det": self.log_abs_det}
        return {name: values.mean(0) for name, values in terms.items()}

    def summary(self) -> dict[str, object]:
        """Return means and standard errors over draws and images, under the keys of metrics.json.

        Returns:
            `bits_per_dim`: mean over draws and images. `bits_per_dim_se`: std over images of each image's mean over
            draws, divided by sqrt(images). As the noise of dequantisation and estimator is independent between images,
            its effect is included. `bits_per_dim_se_draws`: sqrt(mean over images of the variance over draws /
            (draws images)), the standard error due to that noise alone. `parts`: means of the three terms. A standard
            error is None if there is one image, or one draw.
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
def measure(
    flow: Flow, images: Images | Vectors | Tensor, draws: int, batch_size: int, generator: torch.Generator
) -> Likelihood:
    """Measure the bits/dim of each image `draws` times, with independent noise of dequantisation and estimator.

    Those of vectors have no dequantisation: they are -log2 p(x) / D, which depends on the units of x.

    Args:
        flow: in evaluation mode.
        images: uint8 (N, C, H, W), or vectors (N, D).
        draws: number of draws per image.
        batch_size: number of images at a time.
        generator: source of the dequantisation noise, on the CPU. The estimator's noise comes from torch's global one.

    Raises:
        DataError: the images have the wrong type or shape.
    """
    check_samples(flow, images[:0])
    parameter = next(flow.parameters())
    nats_per_bit_per_dim = math.prod(flow.shape) * math.log(2)
    log_prob_z = torch.empty(draws, len(images), dtype=torch.float64, device="cpu")
    log_abs_det = torch.empty(draws, len(images), dtype=torch.float64, device="cpu")
    for draw in range(draws):
        start = 0
        for x in dequantised(images, flow.config.levels, generator, batch_size, parameter.dtype):
            batch = slice(start, start + len(x))
            start += len(x)
            z, nats = flow(x.to(parameter.device))
            # To the CPU first, as MPS has no float64.
            log_prob_z[draw, batch] = -flow.base_log_prob(z).cpu().double() / nats_per_bit_per_dim
            log_abs_det[draw, batch] = -nats.cpu().double() / nats_per_bit_per_dim
    return Likelihood(log_prob_z, log_abs_det, math.log2(flow.config.levels or 1))
