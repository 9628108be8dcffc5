"""Principal components of images, as features that need no trained network."""

from dataclasses import dataclass

import torch
from torch import Tensor

from acf.data.prepared.tensors import Images


@dataclass(frozen=True)
class Components:
    """Projection on the directions of largest variance.

    Attributes:
        mean: of the images it was fitted to, (D,), float64.
        directions: orthonormal columns (D, d), float64, the one of largest variance first.
        explained: share of the variance of those images along the directions.
        levels: number of grey levels of the images.
    """

    mean: Tensor
    directions: Tensor
    explained: float
    levels: int

    def features(self, images: Tensor) -> Tensor:
        """Return the features (n, d), float64, of grey levels uint8 (n, C, H, W): V^T (k / (levels - 1) - mean)."""
        return (_values(images, self.levels, self.mean.device) - self.mean) @ self.directions


@torch.no_grad()
def fit_components(images: Tensor, count: int, levels: int, device: torch.device) -> Components:
    """Return the first `count` principal components of images (exact, in float64).

    The eigenvectors are those of the covariance, or, where there are fewer images than values in one, of the matrix of
    inner products of images, which has the same eigenvalues.

    Args:
        images: grey levels uint8 (n, C, H, W).
        count: number of components, below n and at most C H W.
        levels: number of grey levels.
        device: where it is computed; the CPU in place of one without float64 (MPS).

    Raises:
        ValueError: there are not as many components.
    """
    values = _values(images, levels, torch.device("cpu") if device.type == "mps" else device)
    if not 1 <= count <= min(len(values) - 1, values.shape[1]):
        raise ValueError(f"{len(values)} images of {values.shape[1]} values do not have {count} principal components")
    mean = values.mean(0)
    values -= mean
    if values.shape[1] <= len(values):
        found, vectors = torch.linalg.eigh(values.T @ values)
        directions = vectors[:, -count:].flip(1)
    else:
        found, vectors = torch.linalg.eigh(values @ values.T)
        directions = torch.linalg.qr(values.T @ vectors[:, -count:].flip(1)).Q
    explained = float(found[-count:].sum() / found.sum()) if float(found.sum()) > 0 else 1.0
    return Components(mean, directions, explained, levels)


def sample_of(images: Images, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` different images drawn without order, or all if there are not more, in the order they stand in."""
    if count >= len(images):
        return images[:]
    return images[torch.randperm(len(images), generator=generator)[:count].sort().values]


def _values(images: Tensor, levels: int, device: torch.device) -> Tensor:
    return images.flatten(1).to(device, torch.float64) / (levels - 1)
