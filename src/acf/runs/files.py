"""Writing a file so that its name only ever holds the old content or the whole of the new."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from acf.errors import UnwritableError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; on leaving without an error it is fsynced and renamed to `path`.

    The temporary name is fixed, so an interrupted run leaves at most one, which the next run overwrites.

    Raises:
        UnwritableError: the file cannot be written (disk full, read-only folder, ...).
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
    except BaseException:
        discard(temporary)
        raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into an `UnwritableError` that names it."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch.save reports a failed write as a RuntimeError of its own, with the cause only as its context.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        in_the_way = isinstance(cause, FileExistsError | IsADirectoryError | NotADirectoryError)
        remedy = "remove what is in its place" if in_the_way else "free space or make the folder writable"
        raise UnwritableError(f"cannot write {path}: {cause.strerror or cause}; {remedy}") from error


def discard(path: Path) -> None:
    """Remove a temporary file if that is possible."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old content or the new, never a part; its folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename within `folder` itself survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
