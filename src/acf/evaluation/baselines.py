"""Densities without a network that every flow has to beat, fitted in closed form.

Data: dequantised images x = (k + u) / levels, grey level k and u uniform in [0, 1): all live on [0, 1)^D.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from acf.data.prepared.tensors import Images
from acf.errors import DataError
from acf.evaluation.likelihood import dequantised
from acf.registry import BASELINES, resolve
from acf.settings.config import EvaluationConfig

CHUNK = 2**24
"""Values worked on at a time; bounds the memory beside the fitted numbers."""


class Density(Protocol):
    """What `measure_baselines` needs of a baseline."""

    @property
    def parameters(self) -> int:
        """How many numbers were fitted."""

    @classmethod
    def fit(cls, images: Images) -> Self:
        """Fit to images.

        Raises:
            DataError: the images cannot be fitted to; says why.
        """

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log density (B,) in nats of float64 `x` (B, C, H, W) in [0, 1)."""


class Uniform:
    """The uniform density: log2(levels) bits/dim on any image."""

    parameters = 0

    @classmethod
    def fit(cls, images: Images) -> Self:
        """Fit nothing."""
        return cls()

    def log_prob(self, x: Tensor) -> Tensor:
        """Return zeros (B,)."""
        return x.new_zeros(len(x))


class PixelHistogram:
    """Independent pixels, each with a histogram over the grey levels, one pseudo-count per level."""

    def __init__(self, log_density: Tensor) -> None:
        """`log_density` (D, levels): log of the density within each bin."""
        self.log_density = log_density

    @property
    def parameters(self) -> int:
        """D (levels - 1): the bins of a pixel sum to one."""
        pixels, levels = self.log_density.shape
        return pixels * (levels - 1)

    @classmethod
    def fit(cls, images: Images) -> Self:
        """Count the levels of each pixel; Laplace's +1 keeps unseen levels possible."""
        pixels, levels = images[0].numel(), images.levels
        offset = torch.arange(pixels) * levels
        counts = torch.ones(pixels * levels, dtype=torch.float64)
        for chunk in _chunks(images):
            counts += torch.bincount((chunk + offset).flatten(), minlength=len(counts))
        probability = counts.view(pixels, levels) / (len(images) + levels)
        return cls(torch.log(probability * levels))

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the sum over pixels of the log density of the bin each lies in."""
        levels = self.log_density.shape[1]
        bins = (x.flatten(1) * levels).floor().long().clamp(0, levels - 1)
        return self.log_density.gather(1, bins.T).sum(0)


class FullGaussian:
    """The maximum-likelihood Gaussian with full covariance of the dequantised training images.

    Its mean and covariance are exact expectations over u, so 1 / (12 levels^2) on the diagonal keeps the
    covariance regular even for pixels that never change. The mass outside [0, 1)^D is not renormalised. There must be
    more images than values in one: with fewer, the covariance says nothing about most directions.
    """

    def __init__(self, mean: Tensor, cholesky: Tensor) -> None:
        """`mean` (D,); `cholesky` (D, D): lower factor of the covariance."""
        self.mean, self.cholesky = mean, cholesky

    @property
    def parameters(self) -> int:
        """D of the mean and D (D + 1) / 2 of the covariance."""
        D = len(self.mean)
        return D + D * (D + 1) // 2

    @classmethod
    def fit(cls, images: Images) -> Self:
        """Accumulate the mean, then the centred second moments, in float64."""
        N, D, levels = len(images), images[0].numel(), images.levels
        if N <= D:
            raise DataError(f"{N} images are too few for the covariance of {D} values")
        mean = torch.zeros(D, dtype=torch.int64)
        for chunk in _chunks(images):
            mean += chunk.sum(0, dtype=torch.int64)
        mean = mean.double() / N
        covariance = torch.zeros(D, D, dtype=torch.float64)
        for chunk in _chunks(images):
            centred = chunk.double() - mean
            covariance.addmm_(centred.T, centred)
        covariance /= N * levels**2
        covariance.diagonal().add_(1 / (12 * levels**2))
        return cls((mean + 0.5) / levels, torch.linalg.cholesky(covariance))

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log density by one triangular solve."""
        centred = (x.flatten(1) - self.mean).T
        white = torch.linalg.solve_triangular(self.cholesky, centred, upper=False)
        constant = 0.5 * len(self.mean) * math.log(2 * math.pi) + self.cholesky.diagonal().log().sum()
        return -0.5 * white.square().sum(0) - constant


def _chunks(images: Images) -> Iterator[Tensor]:
    """Yield images (B, D), a few at a time."""
    for piece in images.pieces(max(1, CHUNK // images[0].numel())):
        yield piece.flatten(1)


def measure_baselines(dataset: str, train: Images, test: Images, config: EvaluationConfig) -> dict[str, Any]:
    """Fit every registered baseline to `train` and measure its bits/dim on `test`, with its standard error.

    Args:
        dataset: name of the data set, for messages.
        train: images that the densities are fitted to.
        test: images that bits/dim is measured on.
        config: number of test images, of draws of the dequantisation noise, and its seed.

    Returns:
        `test_images`, `draws`, `baselines` (bits/dim, standard error and parameters by name) and `not_available` (the
        reason by name of a baseline that cannot be fitted).

    Raises:
        DataError: fewer than two test images.
    """
    levels, test = test.levels, test.first(config.images)
    if len(test) < 2:
        raise DataError(f"{dataset}: a standard error needs at least two test images, there are {len(test)}")
    densities: dict[str, Density] = {}
    absent: dict[str, str] = {}
    for name in BASELINES:
        try:
            densities[name] = resolve(BASELINES, name, "baseline").fit(train)
        except DataError as error:
            absent[name] = str(error)
    bits = density_bits(densities, test, levels, config)
    entries = {
        name: {
            "bits_per_dim": bits[name].mean().item() + math.log2(levels),
            "bits_per_dim_se": bits[name].std().item() / math.sqrt(len(test)),
            "parameters": density.parameters,
        }
        for name, density in densities.items()
    }
    return {"test_images": len(test), "draws": config.draws, "baselines": entries, "not_available": absent}


def density_bits(
    densities: dict[str, Density], images: Images | Tensor, levels: int, config: EvaluationConfig
) -> dict[str, Tensor]:
    """Return per density -log2 p(x) / D (N,) of images (N, C, H, W), means over `config.draws` draws.

    Bits/dim is this plus log2(levels), left out here so that the uniform density has exactly that, without error.

    All densities and all flows see the same noise, from a generator seeded by `config.seed`.
    """
    generator = torch.Generator().manual_seed(config.seed)
    nats = {name: torch.zeros(len(images), dtype=torch.float64) for name in densities}
    for _ in range(config.draws):
        start = 0
        for x in dequantised(images, levels, generator, config.batch_size, torch.float64):
            for name, density in densities.items():
                nats[name][start : start + len(x)] += density.log_prob(x)
            start += len(x)
    D = images[0].numel()
    return {name: -total / (config.draws * D * math.log(2)) for name, total in nats.items()}
