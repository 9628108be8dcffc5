"""Training images in random order, and their way into the flow."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from acf.data.prepared.held_out import held_out_order
from acf.data.prepared.tensors import Images, Vectors
from acf.errors import InputError
from acf.flows.dequantise import dequantise
from acf.runs.ranks import BatchShare


class Batches:
    """An endless stream of images or vectors and their labels: random permutations of the training data, one by one.

    A batch is a function of the seed and its position in the stream, not of the batches read before, so a resumed run
    sees the images that an uninterrupted one would have seen. Some images are held out for validation, the same ones
    for every seed; the stream does not contain them.

    Args:
        images: training images, uint8 (N, C, H, W), or vectors (N, D); only those that are returned are read.
        held_out: number of images held out for validation.
        seed: of the permutations.
        labels: the class of each image, (N,); None where the task needs none.

    Attributes:
        validation: the images or vectors held out, (held_out, ...).
        validation_labels: their labels, int64 (held_out,), or None.

    Raises:
        InputError: there are more labels than images, or fewer.
    """

    def __init__(
        self, images: Images | Vectors | Tensor, held_out: int, seed: int, labels: Sequence[int] | Tensor | None = None
    ) -> None:
        order = held_out_order(len(images))
        self._images = images
        self._seed = seed
        self._labels = None if labels is None else torch.as_tensor(labels, dtype=torch.int64, device="cpu")
        if self._labels is not None and self._labels.shape != (len(images),):
            raise InputError(f"{tuple(self._labels.shape)} labels for {len(images)} images; each image needs one")
        held_back = order[:held_out].sort().values
        self.validation = images[held_back]
        self.validation_labels = None if self._labels is None else self._labels[held_back]
        self._indices = order[held_out:].sort().values
        self._cached: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        """Return the number of images in an epoch."""
        return len(self._indices)

    @property
    def label_range(self) -> tuple[int, int] | None:
        """The smallest and the largest label; None without labels."""
        return None if self._labels is None else (int(self._labels.min()), int(self._labels.max()))

    def batch_at(self, position: int, size: int) -> Tensor:
        """Return images `position` to `position + size - 1` of the stream, uint8 (size, C, H, W) or real (size, D)."""
        return self._images[self._places(position, size)]

    def labels_at(self, position: int, size: int) -> Tensor | None:
        """Return the labels of `batch_at` these positions, int64 (size,); None without labels."""
        return None if self._labels is None else self._labels[self._places(position, size)]

    def _places(self, position: int, size: int) -> Tensor:
        chosen = [torch.empty(0, dtype=torch.int64, device="cpu")]
        while size > 0:
            epoch, offset = divmod(position, len(self))
            within_epoch = self._permutation(epoch)[offset : offset + size]
            chosen.append(within_epoch)
            position += len(within_epoch)
            size -= len(within_epoch)
        return self._indices[torch.cat(chosen)]

    def _permutation(self, epoch: int) -> Tensor:
        cached = self._cached  # read once: another thread may ask for another epoch
        if cached is None or cached[0] != epoch:
            # Torch's CPU generator uses 32 bits of its seed, so seed and epoch are hashed into so many.
            mixed = hashlib.sha256(f"{self._seed}/{epoch}".encode()).digest()[:4]
            generator = torch.Generator("cpu").manual_seed(int.from_bytes(mixed))
            cached = self._cached = (epoch, torch.randperm(len(self), generator=generator, device="cpu"))
        return cached[1]


def require_values(images: Tensor, levels: int | None) -> None:
    """Check that the grey levels of images, uint8 and on the host, are below `levels`, or that vectors are finite.

    Raises:
        InputError: names the largest value, or says that one is not finite.
    """
    if levels is None:
        if not images.isfinite().all():
            raise InputError("expected vectors of finite numbers, got NaN or infinity; prepare the data again")
    elif levels < 256 and len(images) and (highest := int(images.max())) >= levels:
        raise InputError(f"expected images of {levels} grey levels, 0 to {levels - 1}, got the value {highest}")


def training_input(images: Tensor, levels: int | None, horizontal_flips: bool, share: BatchShare) -> Tensor:
    """Return dequantised images in [0, 1), of which each is mirrored with probability 1/2 if `horizontal_flips`.

    Vectors are returned as they are.

    Flips and noise are drawn from torch's global generator of the images' device, flips first, for the whole batch.

    Args:
        images: uint8 (B, C, H, W) with values below `levels`, or vectors (B, D).
        levels: number of grey levels; None for vectors.
        horizontal_flips: whether images may be mirrored left to right.
        share: which rows the images have of a batch that several processes share.
    """
    if horizontal_flips:
        flip = share.rows(torch.rand(share.total, device=images.device)) < 0.5
        images = torch.where(flip.view(-1, 1, 1, 1), images.flip(-1), images)
    return dequantise(images, levels, share=share)
