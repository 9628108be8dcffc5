"""Pictures of what a flow makes of noise and of latent vectors, with the numbers that go with them."""

import math
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from acf.data.prepared.tensors import Images
from acf.evaluation.grids import grey, tile
from acf.evaluation.likelihood import dequantise
from acf.evaluation.nearest import Neighbours, nearest
from acf.flows.flow import Flow
from acf.settings.config import SamplingConfig


class Sampled(NamedTuple):
    """The pictures of one model by name, and numbers as JSON can hold them."""

    pictures: dict[str, Image.Image]
    numbers: dict[str, Any]


@torch.no_grad()
def sampled(flow: Flow, train: Images, test: Images, config: SamplingConfig) -> Sampled:
    """Draw samples at all temperatures from the same latent noise, reconstruct test images, and search neighbours.

    Returns:
        The pictures `samples`, `temperatures` (a row for each), `nearest` (samples above the training images nearest to
        them) and `reconstructions` (test images above f^-1(f(x))). The numbers `temperatures`, `nearest` and
        `reconstructions`.

    Raises:
        NotContractiveError: a block is not proven contractive, so the flow is not inverted.
        ConvergenceError: a fixed-point iteration did not reach its accuracy; names the block.
    """
    levels = flow.config.grey_levels
    parameter = next(flow.parameters())
    noise = torch.Generator().manual_seed(config.seed)
    z = torch.randn(config.samples, math.prod(flow.shape), generator=noise, dtype=parameter.dtype)
    rows = [_levels(flow.inverse(t * z.to(parameter.device)), levels) for t in config.temperatures]
    samples, columns = rows[0], min(config.columns, config.samples)
    near, near_test = (nearest(x, train, parameter.device) for x in (samples, test[: config.samples]))
    x = dequantise(test[: config.reconstructions], levels, noise, parameter.dtype).to(parameter.device)
    back, errors = _reconstructed(flow, x)
    beside = torch.cat([train[int(index)][None] for index in near.indices[:columns]])
    return Sampled(
        {
            "samples": tile(_shown(samples, levels), math.ceil(math.sqrt(len(samples)))),
            "temperatures": tile(_shown(torch.cat([row[:columns] for row in rows]), levels), columns),
            "nearest": tile(_shown(torch.cat([samples[:columns], beside]), levels), columns),
            "reconstructions": tile(torch.cat([grey(x, levels), _shown(back, levels)]), len(x)),
        },
        {
            "temperatures": [
                {"temperature": t, **_spread(row, levels)} for t, row in zip(config.temperatures, rows, strict=True)
            ],
            "test": _spread(test[: config.samples], levels),
            "nearest": {
                "training_images": len(train),
                "samples": _distances(near, levels),
                "test": _distances(near_test, levels),
            },
            "reconstructions": errors,
        },
    )


def _levels(x: Tensor, levels: int) -> Tensor:
    """Return the grey levels floor(x levels), uint8 on the CPU, of what an inverse returned, clamped to the range."""
    return (x * levels).floor().clamp(0, levels - 1).to(torch.uint8).cpu()


def _shown(images: Tensor, levels: int) -> Tensor:
    """Return grey levels as shades from black to white."""
    return (images * (255 / (levels - 1))).round().to(torch.uint8)


def _spread(images: Tensor, levels: int) -> dict[str, float | None]:
    """Return the mean of pixel values in [0, 1], and the mean over pixels of their standard deviation over images."""
    values = images.double() / (levels - 1)
    return {"mean": float(values.mean()), "spread": float(values.std(0).mean()) if len(images) > 1 else None}


def _distances(found: Neighbours, levels: int) -> dict[str, list[Any]]:
    """Return Euclidean distances of pixel values in [0, 1] to the nearest training images, and their places there."""
    return {"distances": (found.distances / (levels - 1)).tolist(), "places": found.indices.tolist()}


def _reconstructed(flow: Flow, x: Tensor) -> tuple[Tensor, dict[str, list[Any]]]:
    """Return the grey levels of f^-1(f(x)), and per image what differs from x (B, C, H, W).

    `largest` and `mean` are of |x - f^-1(f(x))| over its values, in units of x; `changed` is the number of values whose
    grey level is another one; `block_bound` is the largest proven error (l2) of any block's solution of its equation,
    for the right-hand side that the block received.
    """
    levels = flow.config.grey_levels
    inversion = flow.invert(flow.transform(x))
    error = (x - inversion.x).abs().flatten(1)
    back = _levels(inversion.x, levels)
    bounds = torch.stack(list(inversion.bounds.values())) if inversion.bounds else torch.zeros(1, len(x))
    return back, {
        "largest": error.max(1).values.tolist(),
        "mean": error.mean(1).tolist(),
        "changed": (back != _levels(x, levels)).flatten(1).sum(1).tolist(),
        "block_bound": bounds.max(0).values.tolist(),
    }
