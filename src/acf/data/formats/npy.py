"""`.npy` files of images that need not fit in memory: written image by image, read in pieces."""

import math
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np

from acf.errors import DataError
from acf.runs.files import writing

HEADER_BYTES = 128
PIECE = 2**24
"""Bytes that are read or written at a time."""


class NpyWriter:
    """Writes uint8 images of one shape to a `.npy` file; their number need not be known beforehand.

    Raises:
        DataError: the file cannot be written.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path, self.shape, self.count = path, shape, 0
        with writing(path):
            self._file = path.open("wb")
            self._file.write(_header((0, *shape)))

    def append(self, images: np.ndarray) -> None:
        """Add uint8 images (n, *shape)."""
        if images.dtype != np.uint8 or images.shape[1:] != self.shape:
            raise ValueError(f"images of {images.dtype} {images.shape[1:]} do not go into {self.path} of {self.shape}")
        with writing(self.path):
            self._file.write(np.ascontiguousarray(images).data)
        self.count += len(images)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with writing(self.path):
                    self._file.seek(0)
                    self._file.write(_header((self.count, *self.shape)))
        finally:
            with writing(self.path):
                self._file.close()


def _header(shape: tuple[int, ...]) -> bytes:
    """Header of version 1.0 of the format, of the same length for every shape."""
    text = repr({"descr": "|u1", "fortran_order": False, "shape": shape})
    length = HEADER_BYTES - 10
    return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + text.ljust(length - 1).encode("latin1") + b"\n"


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, whether the first axis runs fastest, and type of the array that follows in the file.

    Raises:
        ValueError: no header of the format.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def write_npy(target: Path, images: np.ndarray) -> None:
    """Write an array of images to `target`.

    Raises:
        DataError: it cannot be written. (`numpy.save` may lose the end of an array on a full disk and not say so.)
    """
    with NpyWriter(target, images.shape[1:]) as writer:
        writer.append(images)


class NpyFile:
    """A `.npy` file of uint8 images, checked for its size but not read yet.

    Attributes:
        shape: (N, ...) as stored.

    Raises:
        DataError: missing, truncated, not a `.npy` file, of another type, or an archive of arrays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                if file.read(4) == b"PK\x03\x04":
                    raise DataError(f"{path} is an archive of arrays; unpack it and give the one .npy file")
                file.seek(0)
                self.shape, self._fortran, dtype = read_header(file)
                self._offset = file.tell()
        except FileNotFoundError:
            raise DataError(f"{path} not found") from None
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from None
        except DataError:
            raise
        except Exception as error:  # the header is a Python expression, so it can be wrong in any way
            reason = str(error).partition("\n")[0]
            raise DataError(f"{path} is truncated or not a .npy file: {reason}; replace it") from None
        if any(size < 0 for size in self.shape):
            raise DataError(f"{path} is truncated or not a .npy file: its shape is {self.shape}; replace it")
        if dtype.hasobject:
            raise DataError(f"{path} is truncated or not a .npy file: it holds Python objects, which are never loaded")
        if dtype != np.uint8:
            raise DataError(f"{path} has dtype {dtype}; images must be whole numbers stored as uint8")
        missing = self._offset + math.prod(self.shape) - path.stat().st_size
        if missing > 0:
            raise DataError(f"{path} is truncated or not a .npy file: {missing} bytes are missing")

    def chunks(self, size: int) -> Iterator[np.ndarray]:
        """Yield images in order, in arrays of at most about `size` bytes (one image at least)."""
        count, *rest = self.shape
        each = math.prod(rest)
        if self._fortran and len(self.shape) > 1:
            # Images lie across the whole file: mapped, and copied one piece at a time.
            whole = np.memmap(self.path, np.uint8, "r", self._offset, self.shape, "F")
            for start in range(0, count, max(1, size // max(each, 1))):
                yield np.ascontiguousarray(whole[start : start + max(1, size // max(each, 1))])
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            left = count
            while left:
                n = min(left, max(1, size // max(each, 1)))
                piece = np.fromfile(file, np.uint8, n * each)
                if len(piece) < n * each:
                    raise DataError(f"{self.path} ends early: it was changed while it was read")
                yield piece.reshape(n, *rest)
                left -= n
