"""Between grey levels and densities: dequantisation and the units of likelihood."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from acf.data.prepared.tensors import Images, Vectors
from acf.runs.ranks import BatchShare
from acf.settings.config import ModelConfig


def dequantise(
    images: Tensor,
    levels: int | None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    share: BatchShare | None = None,
) -> Tensor:
    """Return x = (k + u) / levels in [0, 1) with u uniform in [0, 1) (arXiv 1511.01844, section 3.1).

    Vectors of real numbers, which have no levels, are returned as they are.

    Args:
        images: grey levels k = 0, ..., levels - 1, any shape; or vectors.
        levels: number of grey levels; None for vectors.
        generator: source of u, on the CPU; by default torch's global generator of the images' device.
        dtype: of the result.
        share: which rows `images` has of a batch that several processes share; u is drawn for the batch.
    """
    if levels is None:
        return images.to(dtype)
    shape = images.shape if share is None else (share.total, *images.shape[1:])
    if generator is None:
        noise = torch.rand(shape, device=images.device, dtype=dtype)
    else:
        # In float64 whatever the result's type, so that all models see the same noise.
        noise = torch.rand(shape, generator=generator, dtype=torch.float64, device="cpu")
        noise = noise.to(images.device, dtype)
    if share is not None:
        noise = share.rows(noise)
    x = (images + noise) / levels
    return x.clamp(max=1 - torch.finfo(dtype).eps / 2)


def dequantised(
    images: Images | Vectors | Tensor,
    levels: int | None,
    generator: torch.Generator,
    batch_size: int,
    dtype: torch.dtype = torch.float32,
) -> Iterator[Tensor]:
    """Yield `dequantise` of `batch_size` images at a time: all of them never lie in memory as numbers of `dtype`.

    The noise is the same whatever the batch size, as one image's is drawn after the other's.
    """
    for start in range(0, len(images), batch_size):
        yield dequantise(images[start : start + batch_size], levels, generator, dtype)


def bits_per_dim_of(log_prob: Tensor, config: ModelConfig) -> Tensor:
    """Turn log p(x) in nats of dequantised images into bits/dim of the grey levels, of vectors into bits/dim of p.

    -log2 p(x) / D + log2(levels), with D = C H W: the density on [0, 1)^D spreads each level over 1 / levels. For
    vectors (D,) of real numbers it is -log2 p(x) / D, which depends on their units.
    """
    levels = 1 if config.levels is None else config.levels
    return -log_prob / (math.prod(config.shape) * math.log(2)) + math.log2(levels)
