"""`.npy` files of images or vectors that need not fit in memory: written one by one, read in pieces."""

import math
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import numpy as np
from numpy.typing import DTypeLike

from acf.errors import DataError
from acf.runs.files import writing

HEADER_BYTES = 128
PIECE = 2**24
"""Bytes that are read or written at a time."""


class NpyWriter:
    """Writes images, or samples of another type, of one shape to a `.npy` file; their number need not be known.

    Args:
        path: the file.
        shape: of one sample.
        dtype: of its values.

    Raises:
        DataError: the file cannot be written.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: DTypeLike = np.uint8) -> None:
        self.path, self.shape, self.dtype, self.count = path, shape, np.dtype(dtype), 0
        with writing(path):
            self._file = path.open("wb")
            self._file.write(_header((0, *shape), self.dtype))

    def append(self, images: np.ndarray) -> None:
        """Add samples (n, *shape)."""
        if images.dtype != self.dtype or images.shape[1:] != self.shape:
            raise ValueError(f"samples of {images.dtype} {images.shape[1:]} do not go into {self.path} of {self.shape}")
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
                    self._file.write(_header((self.count, *self.shape), self.dtype))
        finally:
            with writing(self.path):
                self._file.close()


def _header(shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """Header of version 1.0 of the format, of the same length for every shape."""
    text = repr({"descr": dtype.str, "fortran_order": False, "shape": shape})
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
    """A `.npy` file of images, or of samples of another type, checked for its size but not read yet.

    Args:
        path: the file.
        dtype: that its values have to have.

    Attributes:
        shape: (N, ...) as stored.

    Raises:
        DataError: missing, truncated, not a `.npy` file, of another type, or an archive of arrays.
    """

    def __init__(self, path: Path, dtype: DTypeLike = np.uint8) -> None:
        self.path, self.dtype = path, np.dtype(dtype)
        try:
            with path.open("rb") as file:
                if file.read(4) == b"PK\x03\x04":
                    raise DataError(f"{path} is an archive of arrays; unpack it and give the one .npy file")
                file.seek(0)
                self.shape, self._fortran, found = read_header(file)
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
        if found.hasobject:
            raise DataError(f"{path} is truncated or not a .npy file: it holds Python objects, which are never loaded")
        if found != self.dtype:
            what = "images must be whole numbers stored as uint8" if self.dtype == np.uint8 else f"not {self.dtype}"
            raise DataError(f"{path} has dtype {found}; {what}")
        missing = self._offset + math.prod(self.shape) * self.dtype.itemsize - path.stat().st_size
        if missing > 0:
            raise DataError(f"{path} is truncated or not a .npy file: {missing} bytes are missing")

    def chunks(self, size: int) -> Iterator[np.ndarray]:
        """Yield samples in order, in arrays of at most about `size` bytes (one sample at least)."""
        count, *rest = self.shape
        each = math.prod(rest)
        most = max(1, size // max(each * self.dtype.itemsize, 1))
        if self._fortran and len(self.shape) > 1:
            # Images lie across the whole file: mapped, and copied one piece at a time.
            whole = np.memmap(self.path, self.dtype, "r", self._offset, self.shape, "F")
            for start in range(0, count, most):
                yield np.ascontiguousarray(whole[start : start + most])
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            left = count
            while left:
                n = min(left, most)
                piece = np.fromfile(file, self.dtype, n * each)
                if len(piece) < n * each:
                    raise DataError(f"{self.path} ends early: it was changed while it was read")
                yield piece.reshape(n, *rest)
                left -= n
