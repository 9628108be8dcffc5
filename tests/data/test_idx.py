import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from acf.data.formats.idx import read_idx
from acf.errors import DataError

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
HEADER = bytes([0, 0, 8, 3]) + struct.pack(">III", 2, 3, 4)


def write(folder: Path, content: bytes) -> Path:
    path = folder / "images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(content))
    return path


def test_images(tmp_path):
    images = read_idx(write(tmp_path, HEADER + IMAGES.tobytes()))
    assert images.dtype == np.uint8
    assert np.array_equal(images, IMAGES)


def test_labels(tmp_path):
    content = bytes([0, 0, 8, 1]) + struct.pack(">I", 300) + bytes(300)
    assert read_idx(write(tmp_path, content)).shape == (300,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with nothing"),
        (b"\0\0\x08", "not an IDX file"),
        (b"\x89PNG" + IMAGES.tobytes(), "not an IDX file: it starts with 89 50 4e 47"),
        (bytes([0, 0, 13, 3]) + HEADER[4:] + IMAGES.tobytes(), "type 0x0d"),
        (HEADER[:10], "truncated: its header needs 16 bytes, it has 10"),
        (HEADER + IMAGES.tobytes()[:-1], "needs 24 bytes, it has 23"),
        (HEADER + IMAGES.tobytes() + b"\0", "needs 24 bytes, it has 25"),
    ],
)
def test_wrong_content(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=message) as error:
        read_idx(path)
    assert str(path) in str(error.value)


def test_broken_gzip(tmp_path):
    path = write(tmp_path, HEADER + IMAGES.tobytes())
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-6] ^= 1
    for content in (whole[:-4], whole[:20], b"plain text", bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(DataError, match="truncated or not a gzip file"):
            read_idx(path)
    path.unlink()
    with pytest.raises(DataError, match="not found"):
        read_idx(path)
