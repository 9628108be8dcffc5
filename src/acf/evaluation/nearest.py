"""The training images that are nearest to given images, by exact search."""

from dataclasses import dataclass

import torch
from torch import Tensor

from acf.data.prepared.tensors import Images

PIECE = 2**24
"""Values of training images that are compared at a time: 128 MiB in float64."""


@dataclass(frozen=True)
class Neighbours:
    """Of each image, its nearest training image.

    Attributes:
        distances: Euclidean distances (N,) of pixel values in grey levels, float64 on the CPU.
        indices: places (N,) of the nearest ones among the training images; of equally near ones, the first.
    """

    distances: Tensor
    indices: Tensor


@torch.no_grad()
def nearest(images: Tensor, train: Images, device: torch.device, piece: int = PIECE) -> Neighbours:
    """Return the training image nearest to each image: sqrt(min over y of sum over pixels of (k - y)^2).

    Squared distances are sums of integers below 2^53, which float64 adds up without rounding in any order, so that the
    result is the same on all devices.

    Args:
        images: grey levels k, uint8 (N, C, H, W), N at least 1.
        train: images of the same shape and levels, at least one.
        device: where distances are computed; the CPU in place of one without float64 (MPS).
        piece: number of values of training images in memory at a time.
    """
    place = torch.device("cpu") if device.type == "mps" else device
    x = images.flatten(1).to(place, torch.float64)
    own = x.square().sum(1, keepdim=True)
    best = torch.full((len(x),), torch.inf, dtype=torch.float64, device=place)
    index = torch.zeros(len(x), dtype=torch.int64, device=place)
    start = 0
    for some in train.pieces(max(1, piece // x.shape[1])):
        y = some.flatten(1).to(place, torch.float64)
        squared, found = (own - 2 * x @ y.T + y.square().sum(1)).min(1)
        closer = squared < best
        best, index = torch.where(closer, squared, best), torch.where(closer, found + start, index)
        start += len(some)
    return Neighbours(best.sqrt().cpu(), index.cpu())
