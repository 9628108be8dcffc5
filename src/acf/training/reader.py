"""Reading batches one step ahead of training."""

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple, Self

import torch
from torch import Tensor

from acf.runs.ranks import Ranks
from acf.training.batches import Batches, require_values


class Batch(NamedTuple):
    """Images, uint8 (B, C, H, W), or vectors (B, D), and the class of each, int64 (B,); None without labels."""

    images: Tensor
    labels: Tensor | None


class BatchReader:
    """Batches on their way from the disk to the device.

    Within the reader's context, a thread reads the batch that follows while the device works on the present one. What
    is read does not depend on it, as a batch is a function of its position.

    Args:
        batches: the images.
        levels: number of grey levels, None for vectors; the values of every batch are checked on the host.
        ranks: the processes that share every batch.
        device: where the images go. Copies to CUDA start from pinned memory, so that the host need not wait for them.
    """

    def __init__(self, batches: Batches, levels: int | None, ranks: Ranks, device: torch.device) -> None:
        self._batches, self._levels, self._ranks, self._device = batches, levels, ranks, device
        self._pool: ThreadPoolExecutor | None = None
        self._ahead: tuple[int, int, Future[Batch]] | None = None

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool = self._ahead = None

    def read(self, position: int, size: int) -> Batch:
        """Return this process's share of images `position` to `position + size - 1` of the stream, on the device.

        Their number is the length of `ranks.share(size)`.

        Raises:
            InputError: a value is not below the number of grey levels, or not finite.
        """
        ahead, self._ahead = self._ahead, None
        images, labels = ahead[2].result() if ahead and ahead[:2] == (position, size) else self._load(position, size)
        if self._pool is not None:
            self._ahead = (position + size, size, self._pool.submit(self._load, position + size, size))
        on_device = images.to(self._device, non_blocking=True)
        return Batch(on_device, None if labels is None else labels.to(self._device, non_blocking=True))

    def _load(self, position: int, size: int) -> Batch:
        share = self._ranks.share(size)
        images = self._batches.batch_at(position + share.start, len(share))
        require_values(images, self._levels)
        labels = self._batches.labels_at(position + share.start, len(share))
        if self._device.type != "cuda":
            return Batch(images, labels)
        return Batch(images.pin_memory(), None if labels is None else labels.pin_memory())
