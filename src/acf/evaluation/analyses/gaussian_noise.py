"""Additive white Gaussian noise on test images: how much less likely it makes them, and which neighbours they get."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from acf.errors import DataError
from acf.evaluation.analysis import Analysed, Found
from acf.evaluation.likelihood import check_images, dequantised
from acf.flows.dequantise import bits_per_dim_of
from acf.flows.flow import Flow
from acf.settings.analysis_config import NoiseConfig

DECIMALS = 6
"""Of the bits/dim of one image that are stored: far below the noise of its estimate."""


@torch.no_grad()
def gaussian_noise(flow: Flow, analysed: Analysed, config: NoiseConfig) -> Found:
    """Measure bits/dim of test images with noise, and the class that nearest training images give them.

    With grey levels k, u uniform in [0, 1)^D and e standard normal, the image is x = r((k + u) / levels + sigma e),
    where r is `reflected`, so that x lies in [0, 1)^D and has a density there. Its bits/dim are -log2 p(x) / D +
    log2(levels), with one draw of the estimator's noise. u is what evaluation draws first; u and e are the same for all
    sigma, models and seeds.

    The neighbours of x are the training images at the smallest Euclidean distances, once of latent vectors f(x), once
    of the images themselves. Training images are dequantised and have no further noise.

    Returns:
        `sigmas`; `bits_per_dim`, for each sigma a list over images; `neighbours`, None where there are no labels, with
        `train_images`, their number, and `latent` and `pixels`: for each sigma a list over images, 1 where the class
        that the neighbours vote for is the image's own, and 0 where it is not.

    Raises:
        DataError: there are fewer than two test images, or they are not the flow's.
    """
    test = analysed.test.first(config.images)
    check_images(flow, test[:0])
    if len(test) < 2:
        raise DataError("the analysis of noise needs two test images, and the data set has fewer")
    levels, parameter, size = flow.config.grey_levels, next(flow.parameters()), analysed.evaluation.batch_size
    uniform, normal = (torch.Generator().manual_seed(analysed.evaluation.seed + offset) for offset in (0, 1))
    search = _Search.of(flow, analysed, config)
    bits: list[list[float]] = [[] for _ in config.sigmas]
    hits: dict[str, list[list[int]]] = {space: [[] for _ in config.sigmas] for space in ("latent", "pixels")}
    for batch, x in enumerate(dequantised(test, levels, uniform, size, parameter.dtype)):
        e, start = _normal_of(x, normal), batch * size
        for i, sigma in enumerate(config.sigmas):
            noisy = reflected(x + sigma * e).to(parameter.device)
            z, log_abs_det = flow(noisy)
            found = bits_per_dim_of(flow.base_log_prob(z) + log_abs_det, flow.config)
            bits[i] += [round(value, DECIMALS) for value in found.tolist()]
            if search is not None:
                hits["latent"][i] += search.hits(z, search.latent, start)
                hits["pixels"][i] += search.hits(noisy.flatten(1), search.pixels, start)
    neighbours = None if search is None else {"train_images": len(search.train_labels), **hits}
    return Found({"sigmas": list(config.sigmas), "bits_per_dim": bits, "neighbours": neighbours})


def reflected(values: Tensor) -> Tensor:
    """Return v mod 2 where that is at most 1 and 2 - v mod 2 elsewhere: what lies beyond 0 or 1 is folded back inside.

    The result is below 1. White noise that is folded has no atoms at the ends, which it would have if it were cut off.
    """
    within = values.remainder(2)
    return torch.minimum(within, 2 - within).clamp(max=1 - torch.finfo(values.dtype).eps / 2)


def vote(neighbours: Tensor) -> Tensor:
    """Return the class (B,) that most of the neighbours have; in a tie that of the nearest one whose class is tied.

    Args:
        neighbours: classes (B, k) of the neighbours, nearest first.
    """
    support = (neighbours[:, :, None] == neighbours[:, None, :]).sum(2)
    # The first of the largest, which `argmax` does not promise to be.
    rank = torch.arange(neighbours.shape[1], 0, -1, device=neighbours.device)
    first = (support * (len(rank) + 1) + rank).argmax(1, keepdim=True)
    return neighbours.gather(1, first)[:, 0]


@dataclass(frozen=True)
class _Search:
    """Training images (M, D) in two spaces, and the classes of all images, on the flow's device."""

    latent: Tensor
    pixels: Tensor
    train_labels: Tensor
    test_labels: Tensor
    neighbours: int

    @classmethod
    def of(cls, flow: Flow, analysed: Analysed, config: NoiseConfig) -> _Search | None:
        """Return the first training images of the settings; None where there are no labels."""
        labels = analysed.labels
        if labels.train is None or labels.test is None:
            return None
        train, parameter = analysed.train.first(config.train_images), next(flow.parameters())
        noise = torch.Generator().manual_seed(analysed.evaluation.seed + 2)
        latent, pixels = [], []
        for x in dequantised(train, flow.config.grey_levels, noise, analysed.evaluation.batch_size, parameter.dtype):
            there = x.to(parameter.device)
            latent.append(flow.transform(there))
            pixels.append(there.flatten(1))
        of_train, of_test = (torch.tensor(part, device=parameter.device) for part in (labels.train, labels.test))
        return cls(torch.cat(latent), torch.cat(pixels), of_train[: len(train)], of_test, config.neighbours)

    def hits(self, queries: Tensor, among: Tensor, start: int) -> list[int]:
        """Return for the test images from `start` on, given by `queries` (B, D), whether they get their own class."""
        distances = torch.cdist(queries, among)
        nearest = distances.topk(min(self.neighbours, len(among)), largest=False, sorted=True).indices
        chosen = vote(self.train_labels[nearest])
        own = chosen == self.test_labels[start : start + len(queries)]
        return [int(right) for right in own.tolist()]


def _normal_of(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return standard normal noise like x, which does not depend on how many images are drawn at a time."""
    drawn = [torch.randn(x.shape[1:], generator=generator, dtype=torch.float64, device="cpu") for _ in x]
    return torch.stack(drawn).to(x)
