"""TFRecord files of `tf.train.Example`s, read without TensorFlow.

A record is its length (8 bytes, little-endian), a checksum of that, the content, and a checksum of it. Checksums are
CRC-32C, rotated by 15 bits and shifted by a constant. The content is a protocol buffer: Example.features (1) is a
map (1) from names (1) to features (2), of which a list of byte strings (1) has the values (1).
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from acf.errors import DataError
from acf.extras import needed_by

MAX_BYTES = 2**28
"""Largest record that is read into memory."""


def records(path: Path) -> Iterator[bytes]:
    """Yield the content of every record, its checksums verified.

    Raises:
        DataError: missing or truncated, or a checksum does not fit; names the record.
    """
    try:
        with path.open("rb") as file:
            yield from read_records(file, str(path))
    except FileNotFoundError:
        raise DataError(f"{path} not found") from None


def read_records(file: IO[bytes], name: str) -> Iterator[bytes]:
    """As `records`, from an open file; `name` is for messages."""
    index = 0
    while head := file.read(12):
        where = f"{name}: record {index}"
        if len(head) < 12:
            raise DataError(f"{where} is truncated; delete the file and fetch it again")
        length, checksum = struct.unpack("<QI", head)
        _require(head[:8], checksum, where)
        if length > MAX_BYTES:
            raise DataError(f"{where} says it has {length} bytes, too many for an image")
        content = file.read(length)
        tail = file.read(4)
        if len(content) < length or len(tail) < 4:
            raise DataError(f"{where} is truncated; delete the file and fetch it again")
        _require(content, struct.unpack("<I", tail)[0], where)
        yield content
        index += 1


def feature(example: bytes, name: str, where: str) -> bytes:
    """Return the one byte string of the feature `name`.

    Raises:
        DataError: the example has no such feature, or is no example.
    """
    try:
        for features in _fields(example, 1):
            for entry in _fields(features, 1):
                if _fields(entry, 1) == [name.encode()]:
                    (value,) = _fields(_fields(_fields(entry, 2)[0], 1)[0], 1)
                    return value
    except (IndexError, ValueError):
        raise DataError(f"{where} is no example with byte strings") from None
    raise DataError(f"{where} has no feature {name!r}")


def masked_checksum(content: bytes) -> int:
    """Return the masked CRC-32C of the format."""
    with needed_by("a TFRecord file"):
        import google_crc32c

    checksum = google_crc32c.value(content)
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _require(content: bytes, checksum: int, where: str) -> None:
    if masked_checksum(content) != checksum:
        raise DataError(f"{where} is damaged: its checksum does not fit; delete the file and fetch it again")


def _fields(message: bytes, wanted: int) -> list[bytes]:
    """Values of all length-delimited fields of one number, in order."""
    found, place = [], 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == 2:
            length, place = _varint(message, place)
            if place + length > len(message):
                raise ValueError("field ends outside of its message")
            if key >> 3 == wanted:
                found.append(message[place : place + length])
            place += length
        elif kind == 0:
            _, place = _varint(message, place)
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
    return found


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
        if shift > 63:
            raise ValueError("number too long")
