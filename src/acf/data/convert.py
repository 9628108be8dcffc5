"""From `.npy` (as data sets are distributed) to `.pth` (as the stages read them), in constant memory."""

from pathlib import Path

import numpy as np
import torch

from acf.data.files import discard, replacing, writing
from acf.data.prepared.store import content_hash
from acf.errors import DataError

CHUNK_BYTES = 64 * 2**20


def write_npy(target: Path, images: np.ndarray) -> None:
    """Write an array to `target`.

    Raises:
        DataError: it cannot be written. (`numpy.save` may lose the end of an array on a full disk and not say so.)
    """
    with writing(target), target.open("wb") as file:
        images = np.ascontiguousarray(images)
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(images))
        file.write(images.data)


def npy_to_pth(source: Path, target: Path, *, shape: tuple[int, int, int], levels: int, count: int) -> str:
    """Convert images from `source`, uint8 (N, H, W) or (N, H, W, C), to a tensor (N, C, H, W) in `target`.

    The array is memory-mapped and, where its axes have to move, copied through a temporary file beside
    `target`, which holds one contiguous uint8 tensor; the same images give the same bytes under one version
    of torch.

    Args:
        source: the `.npy` file.
        target: the `.pth` file, replaced only when all is written.
        shape: (C, H, W) each image must have.
        levels: values must be below it.
        count: N the array must have.

    Returns:
        SHA-256 of the tensor's bytes.

    Raises:
        DataError: `source` is missing, truncated or not an array file, or has another dtype, shape or range;
            `target` cannot be written.
    """
    images = _open(source)
    _check(images, source, shape, levels, count)
    images = images[:, None] if images.ndim == 3 else np.moveaxis(images, -1, 1)
    raw = target.with_name(f".{target.name}.raw")
    try:
        if not images.flags.c_contiguous:
            images = _copy(images, raw)
        tensor = torch.from_numpy(images)
        with replacing(target) as file:
            # Through the handle: given a path, torch.save would write the temporary name into the file.
            torch.save(tensor, file)
        return content_hash(tensor)
    finally:
        discard(raw)


def _open(source: Path) -> np.ndarray:
    try:
        # Copy-on-write, so that torch may wrap the pages as writable; the file itself stays as it is.
        images = np.load(source, mmap_mode="c", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{source} not found") from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{source} is truncated or not a .npy file: {error}") from None
    if not isinstance(images, np.ndarray):
        raise DataError(f"{source} is an archive of arrays; unpack it and give the one .npy file")
    return images


def _check(images: np.ndarray, source: Path, shape: tuple[int, int, int], levels: int, count: int) -> None:
    if images.dtype != np.uint8:
        raise DataError(f"{source} has dtype {images.dtype}; images must be whole numbers stored as uint8")
    channels, height, width = shape
    wanted = [(count, height, width, channels)] + ([(count, height, width)] if channels == 1 else [])
    if images.shape not in wanted:
        raise DataError(f"{source} has shape {images.shape}; expected (N, H, W, C) = {' or '.join(map(str, wanted))}")
    # Every uint8 is below 256: only fewer levels are worth a pass over the data.
    if levels < 256 and (highest := int(images.max())) >= levels:
        raise DataError(f"{source} has value {highest}; with {levels} levels values lie in [0, {levels - 1}]")


def _copy(images: np.ndarray, raw: Path) -> np.ndarray:
    """Copy a view into a contiguous array mapped to the file `raw`."""
    with writing(raw):
        raw.parent.mkdir(parents=True, exist_ok=True)
        with raw.open("wb") as file:
            rows = max(1, CHUNK_BYTES // images[0].nbytes)
            for start in range(0, len(images), rows):
                # Written, not assigned to a writable map: a full disk is then an error instead of a SIGBUS.
                file.write(np.ascontiguousarray(images[start : start + rows]).data)
    return np.memmap(raw, dtype=np.uint8, mode="c", shape=images.shape)
