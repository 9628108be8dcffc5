"""The order in which training images are seen, as a function of seed and position alone."""

import hashlib

import torch
from torch import Tensor

from acf.data.prepared.tensors import Images


class Batches:
    """An endless stream of uint8 images: one permutation after the other, cut into batches.

    Any position can be reached without passing through the earlier ones, so a resumed run sees what an uninterrupted
    one would have seen. A fixed part of the training set is held out for validation, the same for every seed.

    Args:
        images: training images, uint8 (N, C, H, W); only those of a batch are read.
        held_out: number of validation images.
        seed: of the permutations.
    """

    def __init__(self, images: Images | Tensor, held_out: int, seed: int) -> None:
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        self._images, self._seed = images, seed
        self.validation = images[order[:held_out].sort().values]
        self._indices = order[held_out:].sort().values
        self._cached: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        """Number of images per epoch."""
        return len(self._indices)

    def take(self, start: int, count: int) -> Tensor:
        """Return images number `start` to `start + count` of the stream, uint8 (count, C, H, W)."""
        chosen = []
        while count > 0:
            epoch, offset = divmod(start, len(self))
            part = self._permutation(epoch)[offset : offset + count]
            chosen.append(part)
            start, count = start + len(part), count - len(part)
        return self._images[self._indices[torch.cat(chosen)]]

    def _permutation(self, epoch: int) -> Tensor:
        if self._cached is None or self._cached[0] != epoch:
            # Torch's CPU generator uses 32 bits of its seed, so seed and epoch are mixed before.
            mixed = hashlib.sha256(f"{self._seed}/{epoch}".encode()).digest()[:4]
            generator = torch.Generator().manual_seed(int.from_bytes(mixed))
            self._cached = (epoch, torch.randperm(len(self), generator=generator))
        return self._cached[1]
