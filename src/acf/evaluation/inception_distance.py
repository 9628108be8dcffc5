"""FID (arXiv 1706.08500) by torch-fidelity, where that and the published weights are installed."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from acf.extras import install_command
from acf.runs.inception_weights import (
    FILE,
    SOURCE,
    VARIABLE,
    inception_place,
    installed_version,
    weights_digest,
)

PUBLISHED = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""SHA-256 of the weights: with others the number would be no FID."""


class FidUnavailableError(Exception):
    """FID cannot be computed here; the message is the reason, in words for a report."""


def inception_distance(samples: Tensor, reference: Tensor, levels: int, device: torch.device) -> float:
    """Return the FID of samples against reference images, as torch-fidelity computes it.

    Args:
        samples: grey levels uint8 (n, 3, H, W).
        reference: grey levels uint8 (m, 3, H, W).
        levels: number of grey levels; they are scaled to 0, ..., 255.
        device: where features are computed: CUDA, or the CPU.

    Raises:
        FidUnavailableError: the images have not three channels, or torch-fidelity or the published weights are not
            there. Nothing is downloaded.
    """
    if samples.shape[1] != 3:
        raise FidUnavailableError(f"FID is defined for colour images, and these have {samples.shape[1]} channel")
    calculate = _torch_fidelity()
    path = inception_place()
    digest = weights_digest(path)
    if digest is None:
        place = f"in the folder of torch.hub ({FILE})" if path.name == FILE else f"where {VARIABLE} says"
        raise FidUnavailableError(f"there are no Inception weights {place}; they are at {SOURCE}")
    if digest != PUBLISHED:
        raise FidUnavailableError(
            f"the file of Inception weights has SHA-256 {digest[:8]}..., the published one has {PUBLISHED[:8]}..."
        )
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        found = calculate(
            input1=_Levels(samples, levels),
            input2=_Levels(reference, levels),
            fid=True,
            feature_extractor_weights_path=str(path),
            cuda=device.type == "cuda",
            cache=False,
            verbose=False,
            save_cpu_ram=True,  # no processes that load images
        )
    return float(found["frechet_inception_distance"])


def _torch_fidelity() -> Any:
    """Return the function that computes metrics."""
    if installed_version("torch-fidelity") is None:
        raise FidUnavailableError(f"torch-fidelity is not installed ({install_command('torch-fidelity')})")
    try:
        from torch_fidelity import calculate_metrics
    except Exception as error:  # torchvision of another build than torch's, for instance
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise FidUnavailableError(f"torch-fidelity cannot be imported ({reason})") from error
    return calculate_metrics


class _Levels(Dataset[Tensor]):
    """Images as torch-fidelity takes them, uint8 of 256 levels."""

    def __init__(self, images: Tensor, levels: int) -> None:
        self._images, self._scale = images, 255 / (levels - 1)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        return (self._images[index] * self._scale).round().to(torch.uint8)
