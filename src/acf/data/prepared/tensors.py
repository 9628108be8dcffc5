"""Reading the prepared tensors back, never without checking them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from acf.data.prepared.labels import read_labels
from acf.data.prepared.manifest import ROOT, SPLITS, Manifest, Split, prepare_hint, read_manifest
from acf.data.prepared.seen import averaged_shape
from acf.errors import ConfigError, DataError

PIECE = 2**25
"""Bytes that are hashed at a time."""


class Vectors:
    """Vectors of one split, float32 (D,) each, read from a memory-mapped file as they are asked for.

    An index that torch takes for the first dimension gives a tensor.
    """

    levels = None

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor

    def __len__(self) -> int:
        return len(self._tensor)

    def __getitem__(self, index: slice | int | Tensor) -> Tensor:
        return self._tensor[index]

    @property
    def shape(self) -> torch.Size:
        """(N, D)."""
        return self._tensor.shape

    def first(self, count: int | None) -> "Vectors":
        """Return the first `count` vectors, or all of them if it is None, without reading any."""
        return Vectors(self._tensor[:count])

    def pieces(self, size: int) -> Iterator[Tensor]:
        """Yield all vectors in order, float32 (n, D), `size` at a time."""
        yield from self._tensor.split(size)


class Images:
    """Images of one split, uint8 (C, H, W) each, read from a memory-mapped file as they are asked for.

    With `average` k above 1, each square of k x k values becomes their mean, rounded to the nearest grey level, halves
    up: floor((sum + floor(k^2 / 2)) / k^2), one of as many levels as before. With `levels` grey levels of the `stored`
    ones, value v of the result becomes floor(v levels / stored): of 256 levels, 32 keep the first 5 bits of 8. An index
    that torch takes for the first dimension gives a tensor.

    Raises:
        ConfigError: `levels` does not divide `stored`, so that grey levels would be of unequal width, or `average` does
            not divide height and width.
    """

    def __init__(self, tensor: Tensor, stored: int, levels: int | None = None, average: int = 1) -> None:
        self.levels, self.average = stored if levels is None else levels, average
        if stored % self.levels:
            raise ConfigError(f"data.levels is {levels}, but only divisors of the {stored} levels stored can be had")
        self._size = averaged_shape(tensor.shape[1:], average)
        self._tensor, self._stored = tensor, stored

    def __len__(self) -> int:
        return len(self._tensor)

    def __getitem__(self, index: slice | int | Tensor) -> Tensor:
        images = _averaged(self._tensor[index], self.average)
        return images if self.levels == self._stored else images // (self._stored // self.levels)

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""
        return torch.Size((len(self), *self._size))

    def first(self, count: int | None) -> "Images":
        """Return the first `count` images, or all of them if it is None, without reading any."""
        return Images(self._tensor[:count], self._stored, self.levels, self.average)

    def pieces(self, size: int) -> Iterator[Tensor]:
        """Yield all images in order, uint8 (n, C, H, W), `size` at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


def _averaged(images: Tensor, average: int) -> Tensor:
    """Return uint8 (..., H / average, W / average), the rounded means of squares of uint8 (..., H, W)."""
    if average == 1:
        return images
    squares = images.unflatten(-1, (-1, average)).unflatten(-3, (-1, average))
    total = squares.sum((-3, -1), dtype=torch.int32)  # at most 255 x 256^2
    return ((total + average**2 // 2) // average**2).to(torch.uint8)


def tensor_path(dataset: str, split: Split, root: Path = ROOT) -> Path:
    """Return the place of one split's tensor file."""
    return Path(root) / dataset / f"{split}.pth"


def load(dataset: str, split: Split, root: Path = ROOT, levels: int | None = None, average: int = 1) -> Images:
    """Return the images of one split, memory-mapped, with `levels` grey levels; by default as many as are stored.

    Changing a tensor one gets does not change the file. The content hash is not recomputed; that is `verify`.

    Args:
        dataset: name of a prepared data set.
        split: "train" or "test".
        root: folder of prepared data sets.
        levels: number of grey levels; it must divide those that are stored.
        average: side of the squares of pixels that become their mean (`Images` has the rule); it must divide height and
            width.

    Raises:
        ConfigError: the levels stored cannot be reduced to `levels`, `average` does not divide height and width, or the
            data set has vectors.
        DataError: the manifest or the tensor file is missing, truncated or damaged, or the two do not agree.
    """
    images = load_samples(dataset, split, root, levels, average)
    if isinstance(images, Vectors):
        raise ConfigError(f"this looks at images, and data set {dataset} has vectors")
    return images


def load_samples(
    dataset: str, split: Split, root: Path = ROOT, levels: int | None = None, average: int = 1
) -> Images | Vectors:
    """Return the images or vectors of one split, images as `load` does; errors are the same."""
    manifest = read_manifest(dataset, root)
    tensor = _load(manifest, split, root)
    if manifest.levels is None:
        return Vectors(tensor)
    return Images(tensor, manifest.levels, levels, average)


def load_vectors(dataset: str, split: Split, root: Path = ROOT) -> Vectors:
    """Return the vectors of one split, memory-mapped; errors as `load`, also if the data set has images."""
    vectors = load_samples(dataset, split, root)
    if isinstance(vectors, Images):
        raise ConfigError(f"this looks at vectors, and data set {dataset} has images")
    return vectors


def verify(dataset: str, root: Path = ROOT) -> Manifest:
    """Check both splits as `load` does, their bytes and the labels by the manifest's hashes; return the manifest.

    A manifest of an earlier version, which knows of no labels, is checked without them. Others call `acf.data.verify`.

    Raises:
        DataError: as `load`, or the content differs from what was prepared; names the file.
        Exception: of any kind, from torch's reader, where it reads a damaged file once and fails at the next reading.
    """
    manifest = read_manifest(dataset, root)
    for split in SPLITS:
        _load(manifest, split, root)
        path = tensor_path(dataset, split, root)
        found = _content_hash(path)
        if found != manifest.sha256[split]:
            raise DataError(
                f"{path} is damaged: SHA-256 of its content is {found}, the manifest has "
                f"{manifest.sha256[split]}; {prepare_hint(dataset)}"
            )
    if manifest.labels is not None:
        read_labels(dataset, root)
    return manifest


def _content_hash(path: Path) -> str:
    """SHA-256 of a tensor's bytes as torch maps them, which another reader of the zip format may find elsewhere.

    The file is mapped anew for each piece, as pages that were read count as memory in use until their mapping ends.
    """
    digest, start = hashlib.sha256(), 0
    while len(piece := _mapped(path)[start : start + PIECE]):
        digest.update(piece.numpy().data)
        start += PIECE
    return digest.hexdigest()


def _mapped(path: Path) -> Tensor:
    """Return the bytes of a tensor's file."""
    tensor: Tensor = torch.load(path, weights_only=True, mmap=True)
    return tensor.view(-1).view(torch.uint8)


def _load(manifest: Manifest, split: Split, root: Path) -> Tensor:
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    path = tensor_path(manifest.dataset, split, root)
    hint = prepare_hint(manifest.dataset)
    if not path.is_file():
        raise DataError(f"{path} not found; {hint}")
    try:
        samples = torch.load(path, weights_only=True, mmap=True)
    except UnpicklingError:  # whose message advises to load it unsafely
        raise DataError(f"{path} is truncated or damaged (more than a tensor is in it); {hint}") from None
    except Exception as error:  # a flipped bit can lead the reader to any kind of error
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise DataError(f"{path} is truncated or damaged ({reason}); {hint}") from None
    if fault := _fault(samples, manifest, split):
        raise DataError(f"{path} {fault}; {hint}")
    return samples


def _fault(samples: object, manifest: Manifest, split: Split) -> str:
    if not isinstance(samples, Tensor):
        return f"holds a {type(samples).__name__} instead of one tensor"
    dtype = torch.uint8 if manifest.is_of_images else torch.float32
    if samples.dtype != dtype:
        return f"has dtype {samples.dtype} instead of {dtype}"
    wanted = (manifest.counts[split], *manifest.shape)
    if tuple(samples.shape) != wanted:
        return f"has shape {tuple(samples.shape)}, the manifest says {wanted}"
    if samples.layout != torch.strided or samples.device.type != "cpu":
        return f"holds a tensor of layout {samples.layout} on {samples.device}"
    if not samples.is_contiguous():
        return "holds a tensor that is not contiguous"
    levels = manifest.levels or 256
    if levels < 256 and (highest := int(samples.max())) >= levels:
        return f"has value {highest}, but the manifest says {manifest.levels} levels"
    return ""
