"""Densities fitted in closed form, without a network, that every flow has to beat.

Of images, they are densities of dequantised images x = (k + u) / levels on [0, 1)^D, where D = C H W, k are the grey
levels of an image and u is uniform in [0, 1)^D (arXiv 1511.01844). Of vectors, they are densities of these as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from acf.data.prepared.tensors import Images, Vectors
from acf.errors import DataError
from acf.evaluation.likelihood import dequantised
from acf.registry import BASELINES, BASELINES_OF_VECTORS, resolve
from acf.settings.config import EvaluationConfig

CHUNK = 2**24
"""Number of grey levels read at a time while fitting, which bounds the memory beside that of the fitted numbers."""


class Density(Protocol):
    """The methods that `measure_baselines` calls of a baseline."""

    @property
    def parameters(self) -> int:
        """Number of fitted values that are free to vary."""

    @classmethod
    def fit(cls, images: Images) -> Self:
        """Return the density of this class that is fitted to `images`.

        Raises:
            DataError: the density cannot be fitted to these images; says why.
        """

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log density (B,) in nats of float64 `x` (B, C, H, W) in [0, 1)."""


class Uniform:
    """The density p(x) = 1, which has log2(levels) bits/dim on any image."""

    parameters = 0

    @classmethod
    def fit(cls, images: Images) -> Self:
        """Return the uniform density; the images are not looked at."""
        return cls()

    def log_prob(self, x: Tensor) -> Tensor:
        """Return zeros (B,)."""
        return x.new_zeros(len(x))


class PixelHistogram:
    """The density of independent values with a histogram over the grey levels for each.

    With n_dk the number of the N training images that have level k at value d (of D = C H W), the density at value d is
    levels (n_dk + 1) / (N + levels) in the bin [k / levels, (k + 1) / levels). The 1 is Laplace's: without it, a level
    that value d never had in training would have density 0.

    Args:
        log_density: (D, levels), log of the density in each bin.
    """

    def __init__(self, log_density: Tensor) -> None:
        self.log_density = log_density

    @property
    def parameters(self) -> int:
        """D (levels - 1), as the probabilities of a value's levels sum to one."""
        pixels, levels = self.log_density.shape
        return pixels * (levels - 1)

    @classmethod
    def fit(cls, images: Images) -> Self:
        """Return the histograms of `images`, counted piece by piece."""
        pixels, levels = images[0].numel(), images.levels
        offset = torch.arange(pixels, device="cpu") * levels
        counts = torch.ones(pixels * levels, dtype=torch.float64, device="cpu")
        for piece in _flattened_pieces(images):
            counts += torch.bincount((piece + offset).flatten(), minlength=len(counts))
        probability = counts.view(pixels, levels) / (len(images) + levels)
        return cls(torch.log(probability * levels))

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the sum over d of the log density, in nats, of the bin that x_d lies in, (B,), for x (B, C, H, W)."""
        levels = self.log_density.shape[1]
        bins = (x.flatten(1) * levels).floor().long().clamp(0, levels - 1)
        return self.log_density.gather(1, bins.T).sum(0)


class FullGaussian:
    """The Gaussian with the mean and full covariance of the dequantised training images.

    Both are exact expectations over u: the mean is (mean k + 1/2) / levels, the covariance (cov k + I / 12) / levels^2
    with cov k divided by N, so it is regular even for values that never change. The density is not divided by the
    Gaussian's mass on [0, 1)^D, which makes its bits/dim an upper bound of those of the truncated Gaussian.

    Args:
        mean: (D,).
        cholesky: (D, D), lower Cholesky factor of the covariance.
    """

    def __init__(self, mean: Tensor, cholesky: Tensor) -> None:
        self.mean, self.cholesky = mean, cholesky

    @property
    def parameters(self) -> int:
        """D of the mean plus D (D + 1) / 2 of the covariance."""
        D = len(self.mean)
        return D + D * (D + 1) // 2

    @classmethod
    def fit(cls, images: Images) -> Self:
        """Return the Gaussian of `images`, from sums over pieces of them, the second moments in float64.

        Raises:
            DataError: there are no more images than values in one, so that the covariance of the grey levels is
                singular.
        """
        N, D, levels = len(images), images[0].numel(), images.levels
        if N <= D:
            raise DataError(f"{N} images are too few for the covariance of {D} values")
        mean = torch.zeros(D, dtype=torch.int64, device="cpu")
        for piece in _flattened_pieces(images):
            mean += piece.sum(0, dtype=torch.int64)
        mean = mean.double() / N
        covariance = torch.zeros(D, D, dtype=torch.float64, device="cpu")
        for piece in _flattened_pieces(images):
            centred = piece.double() - mean
            covariance.addmm_(centred.T, centred)
        covariance /= N * levels**2
        covariance.diagonal().add_(1 / (12 * levels**2))
        return cls((mean + 0.5) / levels, torch.linalg.cholesky(covariance))

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log density in nats (B,) of x (B, C, H, W) in float64."""
        centred = (x.flatten(1) - self.mean).T
        white = torch.linalg.solve_triangular(self.cholesky, centred, upper=False)
        constant = 0.5 * len(self.mean) * math.log(2 * math.pi) + self.cholesky.diagonal().log().sum()
        return -0.5 * white.square().sum(0) - constant


class DiagonalGaussian:
    """The Gaussian with mean and variance of each column of training vectors, and no covariances.

    Args:
        mean: (D,).
        variance: (D,), divided by N.
    """

    def __init__(self, mean: Tensor, variance: Tensor) -> None:
        self.mean, self.variance = mean, variance

    @property
    def parameters(self) -> int:
        """2 D."""
        return 2 * len(self.mean)

    @classmethod
    def fit(cls, images: Vectors) -> Self:
        """Return the Gaussian of vectors, from two passes over pieces of them in float64."""
        mean, covariance = _moments(images)
        return cls(mean, covariance.diagonal())

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log density in nats (B,) of x (B, D) in float64."""
        squares = (x - self.mean).square() / self.variance
        return -0.5 * (squares + (2 * math.pi * self.variance).log()).sum(1)


class VectorGaussian(FullGaussian):
    """The Gaussian with the mean and full covariance of training vectors, the covariance divided by N."""

    @classmethod
    def fit(cls, images: Vectors) -> Self:  # type: ignore[override]
        """Return the Gaussian of vectors, from sums over pieces of them in float64.

        Raises:
            DataError: the covariance is singular, as where one column is the sum of others, or where there are no more
                vectors than columns.
        """
        N, D = images.shape
        mean, covariance = _moments(images)
        smallest = float(torch.linalg.eigvalsh(covariance)[0])
        if N <= D or smallest <= torch.finfo(torch.float32).eps * float(covariance.trace()):
            raise DataError(f"the covariance of {D} columns over {N} rows is singular: one column follows from others")
        return cls(mean, torch.linalg.cholesky(covariance))


def _moments(vectors: Vectors) -> tuple[Tensor, Tensor]:
    """Return mean (D,) and covariance (D, D), divided by N, in float64."""
    N, D = vectors.shape
    size = max(1, CHUNK // D)
    mean = torch.zeros(D, dtype=torch.float64, device="cpu")
    covariance = torch.zeros(D, D, dtype=torch.float64, device="cpu")
    for piece in vectors.pieces(size):
        mean += piece.double().sum(0) / N
    for piece in vectors.pieces(size):
        centred = piece.double() - mean
        covariance.addmm_(centred.T, centred)
    return mean, covariance / N


def _flattened_pieces(images: Images) -> Iterator[Tensor]:
    """Yield all images, flattened to uint8 (B, D), with about `CHUNK` values at a time."""
    for piece in images.pieces(max(1, CHUNK // images[0].numel())):
        yield piece.flatten(1)


def measure_baselines(
    dataset: str, train: Images | Vectors, test: Images | Vectors, config: EvaluationConfig
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fit every registered baseline to `train` and measure its bits/dim on `test`, with its standard error.

    Args:
        dataset: name of the data set, for messages.
        train: images or vectors that the densities are fitted to.
        test: images or vectors that bits/dim is measured on.
        config: number of test images, draws of the dequantisation noise, images at a time, and the seed.

    Returns:
        `test_images` and `draws` (numbers), `baselines` (by name: `bits_per_dim`, `bits_per_dim_se`, `parameters`) and
        `not_available` (by name of a baseline that cannot be fitted: the reason); and, by name of a baseline, the
        bits/dim of each test image, (N,) in float64, as means over draws.

    Raises:
        DataError: fewer than two test images.
    """
    levels, test = test.levels, test.first(config.images)
    if len(test) < 2:
        raise DataError(f"{dataset}: a standard error needs at least two test samples, there are {len(test)}")
    densities: dict[str, Density] = {}
    absent: dict[str, str] = {}
    known = BASELINES_OF_VECTORS if levels is None else BASELINES
    for name in known:
        try:
            densities[name] = resolve(known, name, "baseline").fit(train)
        except DataError as error:
            absent[name] = str(error)
    below = density_bits(densities, test, levels, config)
    entries = {
        name: {
            "bits_per_dim": below[name].mean().item() + math.log2(levels or 1),
            "bits_per_dim_se": below[name].std().item() / math.sqrt(len(test)),
            "parameters": density.parameters,
        }
        for name, density in densities.items()
    }
    measured = {"test_images": len(test), "draws": config.draws, "baselines": entries, "not_available": absent}
    return measured, {name: bits + math.log2(levels or 1) for name, bits in below.items()}


def density_bits(
    densities: dict[str, Density], images: Images | Vectors | Tensor, levels: int | None, config: EvaluationConfig
) -> dict[str, Tensor]:
    """Return -log2 p(x) / D of each image under each density, as means over draws of the dequantisation noise.

    Bits/dim is this plus log2(levels). The sum is left to the caller, because the uniform density has exactly 0 here
    and its bits/dim are then log2(levels) without rounding. All densities see the same noise, from a generator seeded
    by `config.seed`; `evaluate_flow` draws the same for flows.

    Args:
        densities: by name.
        images: uint8 (N, C, H, W), or vectors (N, D).
        levels: number of grey levels; None for vectors.
        config: number of draws, images at a time, and the seed.

    Returns:
        By name of the density, (N,) in float64.
    """
    generator = torch.Generator("cpu").manual_seed(config.seed)
    nats = {name: torch.zeros(len(images), dtype=torch.float64, device="cpu") for name in densities}
    for _ in range(config.draws):
        start = 0
        for x in dequantised(images, levels, generator, config.batch_size, torch.float64):
            for name, density in densities.items():
                nats[name][start : start + len(x)] += density.log_prob(x)
            start += len(x)
    D = images[0].numel()
    return {name: -total / (config.draws * D * math.log(2)) for name, total in nats.items()}
