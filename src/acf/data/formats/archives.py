"""Images in tar archives, read member by member. Nothing is unpacked, so no member can write outside a folder."""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from acf.errors import DataError

MAX_BYTES = 2**25
"""Largest image file that is read into memory."""


@contextmanager
def opened(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar archive, gzip-compressed or not, for reading from start to end.

    Raises:
        DataError: missing, truncated or damaged, now or while it is read.
    """
    try:
        packed = path.name.endswith((".gz", ".tgz"))
        if not packed:
            _require_end(path)
        with gzip.open(path) if packed else path.open("rb") as file, tarfile.open(fileobj=file, mode="r|") as archive:
            yield archive
            while packed and file.read(2**20):  # the checksum comes last
                pass
    except FileNotFoundError:
        raise DataError(f"{path} not found") from None
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path} is truncated or damaged: {error}; delete it and fetch it again") from None


def files(archive: tarfile.TarFile, path: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """Yield the plain files of an archive opened from `path`, in order.

    Raises:
        DataError: a member is a link or device, or its name leads out of the archive.
    """
    for member in archive:
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts:
            raise DataError(f"{path}: the name {member.name!r} leads out of the archive; fetch it anew")
        if member.isdir():
            continue
        content = archive.extractfile(member) if member.isfile() else None
        if content is None:
            raise DataError(f"{path}: {member.name!r} is no plain file; fetch the archive from its source again")
        yield member, content


def images(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name, for messages, and the content of every image file, in the order of the archive.

    Raises:
        DataError: as `opened` and `files`, or a file is too large for an image.
    """
    with opened(path) as archive:
        for member, content in files(archive, path):
            if PurePosixPath(member.name).suffix.lower() not in (".png", ".jpg", ".jpeg"):
                continue
            if member.size > MAX_BYTES:
                raise DataError(f"{path}: {member.name!r} has {member.size} bytes, too many for an image")
            yield f"{path}: {member.name}", content.read()


def _require_end(path: Path) -> None:
    """The format ends with two blocks of zeros; `tarfile` takes any block boundary for an end."""
    with path.open("rb") as file:
        file.seek(0, 2)
        size = file.tell()
        file.seek(max(0, size - 1024))
        if size % 512 or size < 1024 or any(file.read()):
            raise DataError(f"{path} is truncated or damaged: its end is missing; delete it and fetch it again")
