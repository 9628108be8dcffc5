"""From `.npy` (as data sets are distributed) to `.pth` (as the stages read them), in constant memory."""

import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from acf.data.download.progress import shown
from acf.data.formats.npy import NpyFile
from acf.data.formats.pth import write_pth
from acf.errors import DataError
from acf.runs.files import replacing

CHUNK_BYTES = 16 * 2**20


def npy_to_pth(
    source: Path,
    target: Path,
    *,
    shape: tuple[int, int, int],
    levels: int,
    count: int | Collection[int] | None,
    origin: str = "",
) -> tuple[str, int]:
    """Convert images from `source`, uint8 (N, H, W) or (N, H, W, C), to a tensor (N, C, H, W) in `target`.

    The file holds one contiguous uint8 tensor; the same images give the same bytes under one version of torch.

    Args:
        source: the `.npy` file.
        target: the `.pth` file, replaced only when all is written.
        shape: (C, H, W) each image must have.
        levels: values must be below it.
        count: N the array must have, or those it may have; any if None.
        origin: what to call the array in messages; by default its path.

    Returns:
        SHA-256 of the tensor's bytes, and N.

    Raises:
        DataError: `source` is missing, truncated or not an array file, or has another dtype, shape or range;
            `target` cannot be written.
    """
    images = NpyFile(source)
    origin = origin or str(source)
    _check_shape(origin, images, shape, (count,) if isinstance(count, int) else count)
    number = images.shape[0]
    digest = hashlib.sha256()

    def pieces() -> Iterator[np.ndarray]:
        for piece in shown(images.chunks(CHUNK_BYTES), f"writing {target}", number):
            # Every uint8 is below 256: only fewer levels are worth a pass over the data.
            if levels < 256 and (highest := int(piece.max(initial=0))) >= levels:
                raise DataError(
                    f"{origin} has value {highest}; with {levels} levels values lie in [0, {levels - 1}]; replace it"
                )
            moved = np.ascontiguousarray(piece[:, None] if piece.ndim == 3 else np.moveaxis(piece, -1, 1))
            digest.update(moved.data)
            yield moved

    with replacing(target) as file:
        write_pth(file, Path(file.name), (number, *shape), pieces())
    return digest.hexdigest(), number


def _check_shape(origin: str, images: NpyFile, shape: tuple[int, int, int], counts: Collection[int] | None) -> None:
    channels, *size = shape
    number, *rest = images.shape or (0,)
    fits = rest == [*size, channels] or (channels == 1 and rest == size)
    if not fits or number == 0 or (counts is not None and number not in counts):
        wanted = " or ".join(map(str, sorted(counts))) if counts else "N"
        layouts = [(*size, channels)] + ([tuple(size)] if channels == 1 else [])
        expected = " or ".join(f"({', '.join([wanted, *map(str, layout)])})" for layout in layouts)
        raise DataError(f"{origin} has shape {images.shape}; expected (N, H, W, C) = {expected}; replace it")
