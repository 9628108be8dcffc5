"""FID (arXiv 1706.08500) by torch-fidelity, where that and the published weights are installed."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from acf.runs.inception_weights import (
    FILE,
    SOURCE,
    VARIABLE,
    fidelity_version,
    inception_place,
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
        raise FidUnavailableError(
            f"the Inception weights are not at {path.name if path.name == FILE else path}; fetch {SOURCE} to where "
            f"torch.hub keeps files, or name its place in {VARIABLE}"
        )
    if digest != PUBLISHED:
        raise FidUnavailableError(
            f"the file of Inception weights has SHA-256 {digest[:8]}..., published is {PUBLISHED[:8]}..."
        )
    try:
        torch.load(path, weights_only=True)  # torch-fidelity would unpickle whatever is in it
        found = calculate(
            input1=_Levels(samples, levels),
            input2=_Levels(reference, levels),
            fid=True,
            feature_extractor_weights_path=str(path),
            cuda=device.type == "cuda",
            cache=False,
            verbose=False,
            save_cpu_ram=True,
        )
    except Exception as error:  # of a package that is not ours, on a file that is not ours
        raise FidUnavailableError(f"torch-fidelity failed ({_first_line(error)})") from error
    return float(found["frechet_inception_distance"])


def _torch_fidelity() -> Any:
    """Return the function that computes metrics."""
    if fidelity_version() is None:
        raise FidUnavailableError("torch-fidelity is not installed (pip install 'acf[fid]')")
    try:
        from torch_fidelity import calculate_metrics
    except Exception as error:  # torchvision of another build than torch's, for instance
        raise FidUnavailableError(f"torch-fidelity cannot be imported ({_first_line(error)})") from error
    return calculate_metrics


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


class _Levels(Dataset[Tensor]):
    """Images as torch-fidelity takes them, uint8 of 256 levels."""

    def __init__(self, images: Tensor, levels: int) -> None:
        self._images, self._scale = images, 255 / (levels - 1)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        return (self._images[index] * self._scale).round().to(torch.uint8)
