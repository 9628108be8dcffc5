"""TFRecords, read without TensorFlow."""

from pathlib import Path

import pytest

from acf.data.formats.tfrecord import feature, masked_checksum, records
from acf.errors import DataError
from tests.data.sources import example, last, random_images, record


def test_checksum_is_that_of_the_format() -> None:
    # CRC-32C of 32 zero bytes is 0x8a9136aa (RFC 3720, appendix B.4); the mask is TensorFlow's.
    rotated = (0x8A9136AA >> 15 | 0x8A9136AA << 17) & 0xFFFFFFFF
    assert masked_checksum(bytes(32)) == (rotated + 0xA282EAD8) & 0xFFFFFFFF


def test_records_and_features(tmp_path: Path) -> None:
    images = last(random_images(3, 1, (3, 8, 8))["train"])
    path = tmp_path / "a.tfrecords"
    path.write_bytes(b"".join(record(example(image)) for image in images))
    found = [feature(content, "data", "here") for content in records(path)]
    assert found == [image.tobytes() for image in images]
    with pytest.raises(DataError, match="here has no feature 'image'"):
        feature(next(iter(records(path))), "image", "here")
    with pytest.raises(DataError, match="here"):
        feature(b"\xff\xff no example", "data", "here")
    whole = path.read_bytes()
    for size in (len(whole) - 1, len(whole) - 10, 300, 11):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"record \d is truncated"):
            list(records(path))
    for place in (0, 9, 100, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DataError, match=r"record \d is damaged|too many"):
            list(records(path))
