"""IDX, the file format of MNIST and its relatives (http://yann.lecun.com/exdb/mnist/)."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from acf.errors import DataError

UNSIGNED_BYTE = 8


def read_idx(path: Path) -> np.ndarray:
    """Return the uint8 array in a gzip-compressed IDX file.

    The format is two zero bytes, the type of the elements, the number of axes, the big-endian 32-bit length
    of each axis, and the elements.

    Raises:
        DataError: missing, truncated, damaged, of another type, or with bytes left over.
    """
    try:
        with gzip.open(path) as file:
            content = file.read()
    except FileNotFoundError:
        raise DataError(f"{path} not found") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is truncated or not a gzip file: {error}") from None
    if len(content) < 4 or content[:2] != b"\0\0":
        raise DataError(f"{path} is not an IDX file: it starts with {content[:4].hex(' ') or 'nothing'}")
    kind, axes = content[2], content[3]
    if kind != UNSIGNED_BYTE:
        raise DataError(f"{path} holds elements of IDX type 0x{kind:02x}; only unsigned bytes (0x08) are read")
    header = 4 + 4 * axes
    if len(content) < header:
        raise DataError(f"{path} is truncated: its header needs {header} bytes, it has {len(content)}")
    shape = struct.unpack(f">{axes}I", content[4:header])
    if len(content) - header != math.prod(shape):
        raise DataError(
            f"{path} is truncated or damaged: shape {shape} needs {math.prod(shape)} bytes, "
            f"it has {len(content) - header}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
