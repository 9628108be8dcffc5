"""The downsampled ImageNet as image-net.org hands it out: zip files of `.npz` batches, read in pieces.

A batch holds `data`, uint8 (N, 3 H W), all red values of an image first (Chrabaszcz et al., arXiv 1707.08819).
"""

import math
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np

from acf.data.formats.npy import read_header
from acf.errors import DataError
from acf.runs.files import writing

ENTRY = "data.npy"


def batches(archive: Path, scratch: Path, shape: tuple[int, int, int], size: int) -> Iterator[np.ndarray]:
    """Yield all images of the `.npz` batches in a zip file as uint8 (n, H, W, C), at most about `size` bytes at a time.

    Args:
        archive: the zip file; its batches are taken in the order of their numbers.
        scratch: folder for one batch at a time, as a compressed batch cannot be read where it lies.
        shape: (C, H, W).
        size: bytes of a piece.

    Raises:
        DataError: missing, truncated or damaged, or it holds something else; names file and entry.
    """
    try:
        with zipfile.ZipFile(archive) as outer:
            names = [name for name in outer.namelist() if name.endswith(".npz")]
            if not names:
                raise DataError(f"{archive} holds no .npz batches; is it the file that image-net.org names so?")
            for name in sorted(names, key=lambda name: (len(name), name)):
                batch = scratch / PurePosixPath(name).name
                with writing(batch), batch.open("wb") as file, outer.open(name) as content:
                    shutil.copyfileobj(content, file, 2**20)
                with zipfile.ZipFile(batch) as inner, inner.open(ENTRY) as array:
                    yield from _pieces(array, f"{archive}: {name}", shape, size)
                batch.unlink()
    except FileNotFoundError:
        raise DataError(f"{archive} not found") from None
    except (zipfile.BadZipFile, EOFError, KeyError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{archive} is truncated or damaged: {error}; delete it and fetch it again") from None


def _pieces(array: IO[bytes], name: str, shape: tuple[int, int, int], size: int) -> Iterator[np.ndarray]:
    try:
        stored, fortran, dtype = read_header(array)
    except Exception as error:  # as in `npy`
        reason = str(error).partition("\n")[0]
        raise DataError(f"{name}: its data are no array: {reason}; delete the file and fetch it again") from None
    each = math.prod(shape)
    if dtype != np.uint8 or fortran or len(stored) != 2 or stored[1] != each or stored[0] < 0:
        raise DataError(f"{name}: its data are {dtype} {stored}; expected uint8 (N, {each})")
    left = stored[0]
    while left:
        n = min(left, max(1, size // each))
        content = array.read(n * each)
        if len(content) < n * each:
            raise DataError(f"{name} is truncated: {left} images are missing")
        yield np.moveaxis(np.frombuffer(content, np.uint8).reshape(n, *shape), 1, -1)
        left -= n
