"""Writing a `.pth` file of one tensor in constant memory, with the bytes that `torch.save` would write.

`torch.save` takes the tensor from memory in one piece. Here it writes the file around the tensor only
(`torch.serialization.skip_data`), the values follow piece by piece, and last what depends on them: the checksum of
their record and the file's identifier, which torch makes of all checksums.
"""

import mmap
import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

RECORD, IDENTIFIER = "archive/data/0", "archive/.data/serialization_id"
DESCRIPTOR, ENTRY = b"PK\x07\x08", b"PK\x01\x02"
NORESERVE = 0x4000  # of Linux: addresses without memory behind them


def write_pth(
    file: BinaryIO,
    path: Path,
    shape: tuple[int, ...],
    pieces: Iterable[np.ndarray],
    dtype: torch.dtype = torch.uint8,
) -> None:
    """Write a tensor of this shape and type, whose bytes are those of the pieces in order, to `file`, open at `path`.

    Raises:
        OSError: it cannot be written.
        ValueError: the pieces do not make up the shape.
    """
    with torch.serialization.skip_data():
        torch.save(_untouched(shape, dtype), file)
    file.flush()
    with zipfile.ZipFile(path) as archive:
        infos = {info.filename: info for info in archive.infolist()}
        names = list(infos)
        directory = archive.start_dir
        identifier = bytearray(archive.read(IDENTIFIER))
    record = infos[RECORD]
    start = _data_offset(path, record)
    checksum, written = 0, 0
    file.seek(start)
    for piece in pieces:
        values = np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data
        if written + len(values) > record.file_size:
            raise ValueError(f"more values than a tensor of shape {shape} has")
        file.write(values)
        checksum = zlib.crc32(values, checksum)
        written += len(values)
    if written != record.file_size:
        raise ValueError(f"{written} bytes do not make a tensor of shape {shape}")
    checksums = {name: checksum if name == RECORD else info.CRC for name, info in infos.items()}
    combined = 0
    for name in names[: names.index(IDENTIFIER)]:
        combined = _combined(combined, checksums[name])
    identifier[-20:] = f"{combined:020d}".encode()
    checksums[IDENTIFIER] = zlib.crc32(identifier)
    place = _data_offset(path, infos[IDENTIFIER])
    file.seek(place)
    file.write(identifier)
    for name, end in ((RECORD, start + record.file_size), (IDENTIFIER, place + len(identifier))):
        _patch(file, path, names.index(name), directory, end, checksums[name])
    file.seek(0, 2)


def _untouched(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A tensor that has addresses, but no memory as long as nobody reads it."""
    size = torch.Size(shape).numel()
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE
    buffer = mmap.mmap(-1, max(size, 1) * dtype.itemsize, flags=flags)
    return torch.frombuffer(buffer, dtype=dtype)[:size].view(shape)


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(30)
    name, extra = struct.unpack("<HH", header[26:30])
    return int(info.header_offset + 30 + name + extra)


def _combined(seed: int, value: int) -> int:
    """How torch combines checksums: `c10::hash_combine` on 64 bits."""
    word = 2**64 - 1
    return seed ^ ((value + 0x9E3779B9 + ((seed << 6) & word) + (seed >> 2)) & word)


def _patch(file: BinaryIO, path: Path, index: int, directory: int, end: int, checksum: int) -> None:
    """Put a checksum behind its record, which ends at `end`, and into entry `index` of the directory."""
    file.flush()
    with path.open("rb") as reader:
        reader.seek(end)
        if reader.read(4) == DESCRIPTOR:
            file.seek(end + 4)
            file.write(struct.pack("<I", checksum))
        place = directory
        for _ in range(index + 1):
            reader.seek(place)
            entry = reader.read(46)
            if entry[:4] != ENTRY:
                raise ValueError(f"{path} is not laid out as torch does")
            here, place = place, place + 46 + sum(struct.unpack("<HHH", entry[28:34]))
    file.seek(here + 16)
    file.write(struct.pack("<I", checksum))
