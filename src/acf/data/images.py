"""Encoded images to arrays, by all cores and in order."""

import io
import multiprocessing
import os
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from acf.errors import DataError

BATCH = 256
"""Images that a process decodes at a time."""
MOST_PIXELS = 100_000_000
"""Larger images are refused before they are decoded: a small file can unpack to any size."""
Encoded = tuple[str, bytes]
"""Where an image is, for messages, and its file's content."""


@dataclass(frozen=True)
class Target:
    """What images are to become.

    Attributes:
        shape: (C, H, W), C = 1 (grey) or 3.
        fit: whether images of other sizes are cut to the middle and resized; otherwise they are refused.
    """

    shape: tuple[int, int, int]
    fit: bool = False


def decode(images: Iterable[Encoded], target: Target) -> Iterator[np.ndarray]:
    """Yield the images in order, as uint8 arrays (n, H, W, C).

    Raises:
        DataError: one of them is damaged, too large, or of another size; names it.
    """
    source = iter(images)
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    first = list(islice(source, 2 * BATCH))
    if workers == 1 or len(first) < 2 * BATCH:
        yield from (_decode(batch, target) for batch in _batches([*first], source))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _end_with_parent, (os.getpid(),)) as pool:
        pending: deque[Future[np.ndarray]] = deque()
        try:
            for batch in _batches(first, source):
                pending.append(pool.submit(_decode, batch, target))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _batches(first: list[Encoded], rest: Iterator[Encoded]) -> Iterator[list[Encoded]]:
    for start in range(0, len(first), BATCH):
        yield first[start : start + BATCH]
    while batch := list(islice(rest, BATCH)):
        yield batch


def _decode(batch: list[Encoded], target: Target) -> np.ndarray:
    channels, height, width = target.shape
    out = np.empty((len(batch), height, width, channels), np.uint8)
    for place, (name, content) in zip(out, batch, strict=True):
        place[:] = _decode_one(name, content, target).reshape(height, width, channels)
    return out


def _decode_one(name: str, content: bytes, target: Target) -> np.ndarray:
    from PIL import Image

    channels, height, width = target.shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image: Image.Image = Image.open(io.BytesIO(content))
        if image.width * image.height > MOST_PIXELS:
            raise DataError(f"{name} has {image.width} x {image.height} pixels, too many to be decoded; remove it")
        if not target.fit and image.size != (width, height):
            raise DataError(f"{name} has {image.width} x {image.height} pixels instead of {width} x {height}")
        image = image.convert("L" if channels == 1 else "RGB")
    except Image.DecompressionBombError:
        raise DataError(f"{name} has more pixels than any photograph, too many to be decoded; remove it") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{name} is damaged or no image: {error}; replace it or fetch its archive again") from None
    if target.fit and image.size != (width, height):
        scale = min(image.width / width, image.height / height)
        left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
        box = (left, top, left + scale * width, top + scale * height)
        image = image.resize((width, height), Image.Resampling.LANCZOS, box)
    return np.asarray(image, np.uint8)


def _end_with_parent(parent: int) -> None:
    """A process that was started for decoding ends if the one that started it was killed."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
