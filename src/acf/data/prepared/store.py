"""Reading the prepared tensors back, never without checking them."""

import hashlib
from pathlib import Path
from pickle import UnpicklingError

import torch

from acf.data.prepared.manifest import ROOT, SPLITS, Manifest, Split, prepare_hint, read_manifest
from acf.errors import DataError


def tensor_path(dataset: str, split: Split, root: Path = ROOT) -> Path:
    """Return the place of one split's tensor file."""
    return Path(root) / dataset / f"{split}.pth"


def load(dataset: str, split: Split, root: Path = ROOT) -> torch.Tensor:
    """Return the images of one split, uint8 of shape (N, C, H, W), values in [0, levels), memory-mapped.

    Writing into the tensor does not change the file. The content hash is not recomputed; that is `verify`.

    Raises:
        DataError: the manifest or the tensor file is missing, truncated or damaged, or the two do not agree.
    """
    return _load(read_manifest(dataset, root), split, root)


def verify(dataset: str, root: Path = ROOT) -> Manifest:
    """Check both splits as `load` does, and their bytes against the manifest's hashes; return the manifest.

    Raises:
        DataError: as `load`, or the content differs from what was prepared; names the file.
    """
    manifest = read_manifest(dataset, root)
    for split in SPLITS:
        found = content_hash(_load(manifest, split, root))
        if found != manifest.sha256[split]:
            path = tensor_path(dataset, split, root)
            raise DataError(
                f"{path} is damaged: SHA-256 of its images is {found}, the manifest has "
                f"{manifest.sha256[split]}; {prepare_hint(dataset)}"
            )
    return manifest


def content_hash(tensor: torch.Tensor) -> str:
    """Return the SHA-256 of the bytes of a contiguous uint8 tensor."""
    return hashlib.sha256(tensor.numpy().reshape(-1).data).hexdigest()


def _load(manifest: Manifest, split: Split, root: Path) -> torch.Tensor:
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    path = tensor_path(manifest.dataset, split, root)
    hint = prepare_hint(manifest.dataset)
    if not path.is_file():
        raise DataError(f"{path} not found; {hint}")
    try:
        images = torch.load(path, weights_only=True, mmap=True)
    except (RuntimeError, UnpicklingError, EOFError, ValueError, OSError) as error:
        first_line = str(error).partition("\n")[0]
        raise DataError(f"{path} is truncated or damaged ({first_line}); {hint}") from None
    if fault := _fault(images, manifest, split):
        raise DataError(f"{path} {fault}; {hint}")
    return images


def _fault(images: object, manifest: Manifest, split: Split) -> str:
    if not isinstance(images, torch.Tensor):
        return f"holds a {type(images).__name__} instead of one tensor"
    if images.dtype != torch.uint8:
        return f"has dtype {images.dtype} instead of torch.uint8"
    wanted = (manifest.counts[split], *manifest.shape)
    if tuple(images.shape) != wanted:
        return f"has shape {tuple(images.shape)}, the manifest says {wanted}"
    if not images.is_contiguous():
        return "holds a tensor that is not contiguous"
    if manifest.levels < 256 and (highest := int(images.max())) >= manifest.levels:
        return f"has value {highest}, but the manifest says {manifest.levels} levels"
    return ""
