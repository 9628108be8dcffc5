"""Encoded images to arrays, by all cores and in order."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np

from acf.errors import ConfigError, DataError
from acf.extras import needed_by

if TYPE_CHECKING:
    from PIL import Image

BATCH, BATCH_BYTES = 256, 2**22
"""Images that a process decodes at a time, and bytes of their files (one image at least)."""
MAX_WAITING_BYTES = 2**27
"""Bytes of files that are read ahead of their decoding."""
MAX_PIXELS = 50_000_000
"""Larger images are refused before they are decoded: a small file can unpack to any size."""
EIGHT_BIT = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
Encoded = tuple[str, bytes]
"""Where an image is, for messages, and its file's content."""


@dataclass(frozen=True)
class Target:
    """What images are to become.

    Attributes:
        shape: (C, H, W), C = 1 (grey) or 3.
        fit: whether images of other sizes are cut to the middle and resized; otherwise they are refused.

    Raises:
        ConfigError: another number of channels.
    """

    shape: tuple[int, int, int]
    fit: bool = False

    def __post_init__(self) -> None:
        if self.shape[0] not in (1, 3):
            raise ConfigError(
                f"encoded images are read as grey or as colour, with 1 or 3 channels; mend `shape`, {self.shape}, of "
                "the class of the data set"
            )


def decode(images: Iterable[Encoded], target: Target) -> Iterator[np.ndarray]:
    """Yield the images in order, as uint8 arrays (n, H, W, C).

    Raises:
        DataError: one of them is damaged, too large, or of another size; names it.
    """
    batches = _batches(images)
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    first = list(islice(batches, 2))
    if workers == 1 or len(first) < 2:
        yield from (_decode(batch, target) for batch in chain(first, batches))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _end_with_parent, (os.getpid(),)) as pool:
        pending: deque[tuple[Future[np.ndarray], int]] = deque()
        waiting = 0
        try:
            for batch in chain(first, batches):
                with _interrupts_held_back():
                    future = pool.submit(_decode, batch, target)
                pending.append((future, sum(len(content) for _, content in batch)))
                waiting += pending[-1][1]
                while len(pending) > 2 * workers or (waiting > MAX_WAITING_BYTES and len(pending) > 1):
                    future, size = pending.popleft()
                    waiting -= size
                    yield future.result()
            while pending:
                yield pending.popleft()[0].result()
        except BrokenProcessPool:
            _stop_waiting_for_readers(pool)
            raise DataError(
                "a process that decodes images was ended from outside, perhaps for want of memory; run again, with more"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _stop_waiting_for_readers(pool: ProcessPoolExecutor) -> None:
    """Let a broken pool end: before Python 3.11.5 its thread waits for ever to write what nobody reads any more."""
    queue = getattr(pool, "_call_queue", None)
    if sys.version_info < (3, 11, 5) and queue is not None:
        queue._reader.close()


def _batches(images: Iterable[Encoded]) -> Iterator[list[Encoded]]:
    batch: list[Encoded] = []
    size = 0
    for image in images:
        if batch and (len(batch) == BATCH or size + len(image[1]) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(image)
        size += len(image[1])
    if batch:
        yield batch


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Processes started in here never see Ctrl-C, which a terminal sends to all: the one that started them decides."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _decode(batch: list[Encoded], target: Target) -> np.ndarray:
    channels, height, width = target.shape
    out = np.empty((len(batch), height, width, channels), np.uint8)
    for place, (name, content) in zip(out, batch, strict=True):
        place[:] = _decode_one(name, content, target)
    return out


def _decode_one(name: str, content: bytes, target: Target) -> np.ndarray:
    with needed_by("reading images"):
        from PIL import Image

    with _damage_named(name), warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image: Image.Image = Image.open(io.BytesIO(content))
    return fitted(name, image, target)


def fitted(name: str, image: Image.Image, target: Target) -> np.ndarray:
    """Return an image of PIL as `target` says, a uint8 array (H, W, C).

    Args:
        name: where the image is, for messages.
        image: it need not be decoded yet.
        target: what it is to become.

    Raises:
        DataError: it is damaged, too large, of more than 8 bits, or of another size than `target` takes; names it.
    """
    from PIL import Image, ImageOps

    channels, height, width = target.shape
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{name} has {image.width} x {image.height} pixels, too many to be decoded; remove it")
    if not target.fit and image.size != (width, height):
        raise DataError(f"{name} has {image.width} x {image.height} pixels instead of {width} x {height}")
    if image.mode not in EIGHT_BIT:
        raise DataError(f"{name} has values of more than 8 bits (mode {image.mode}); convert it to 8 bits")
    with _damage_named(name):
        if target.fit:  # a photograph says how the camera was held
            image = ImageOps.exif_transpose(image)
        image = image.convert("L" if channels == 1 else "RGB")
    if target.fit and image.size != (width, height):
        scale = min(image.width / width, image.height / height)
        left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
        box = (left, top, left + scale * width, top + scale * height)
        image = image.resize((width, height), Image.Resampling.LANCZOS, box)
    return np.asarray(image, np.uint8).reshape(height, width, channels)


@contextmanager
def _damage_named(name: str) -> Iterator[None]:
    """Turn what PIL raises on a file that it cannot decode into a `DataError` that names it."""
    from PIL import Image, UnidentifiedImageError

    remedy = "replace it or fetch its archive again"
    try:
        yield
    except Image.DecompressionBombError:
        raise DataError(f"{name} has more pixels than any photograph, too many to be decoded; remove it") from None
    except UnidentifiedImageError:
        raise DataError(f"{name} is damaged or no image; {remedy}") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{name} is damaged or no image: {error}; {remedy}") from None


def _end_with_parent(parent: int) -> None:
    """A process that was started for decoding ends if the one that started it was killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
