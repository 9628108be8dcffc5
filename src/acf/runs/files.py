"""Writing a file so that its name only ever holds the old content or the whole of the new."""

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from acf.errors import NoSpaceError, UnwritableError

WAIT_SECONDS, RETRY_SECONDS = 600.0, 5.0
"""For how long, and how often, a disk that is full is tried again where it is to take the result of long work."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; on leaving without an error it is fsynced and renamed to `path`.

    The folder is created. The temporary name is fixed, so an interrupted run leaves at most one such file, which the
    next one overwrites. A second process that writes the same file waits for the first.

    Raises:
        UnwritableError: the file cannot be written (disk full, read-only folder, ...).
    """
    temporary = temporary_of(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _open_alone(temporary) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                discard(temporary)
                raise
        sync_folder(path.parent)


def temporary_of(path: Path) -> Path:
    """Return the name under which `path` is written before it is complete."""
    return path.with_name(f".{path.name}.tmp")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old content or the new, never a part; its folder is created.

    Raises:
        UnwritableError: as for `replacing`.
    """
    with replacing(path) as file:
        file.write(content)


def when_there_is_space(write: Callable[[], None]) -> None:
    """Call `write`, again and again while the disk is full, for ten minutes at most; say once that this is so.

    Raises:
        UnwritableError: whatever `write` raises for another reason, or at the end.
    """
    end = time.monotonic() + WAIT_SECONDS
    told = False
    while True:
        try:
            return write()
        except NoSpaceError as error:
            if time.monotonic() >= end:
                raise
            if not told:
                print(f"{error}; trying again for {WAIT_SECONDS / 60:.0f} minutes", flush=True)
            told = True
        time.sleep(RETRY_SECONDS)


def write_if_changed(path: Path, content: bytes) -> bool:
    """Write a file atomically unless it has this content already; return whether it was written.

    Raises:
        UnwritableError: as for `replacing`.
    """
    if path.is_file() and path.read_bytes() == content:
        return False
    write_atomically(path, content)
    return True


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into an `UnwritableError` that names it.

    Raises:
        NoSpaceError: the disk is full, or what the user may have of it.
        UnwritableError: any other refusal.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch.save reports a failed write as a RuntimeError of its own, with the cause only as its context.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        in_the_way = isinstance(cause, FileExistsError | IsADirectoryError | NotADirectoryError)
        remedy = "remove what is in its place" if in_the_way else "free space or make the folder writable"
        kind = NoSpaceError if cause.errno in (errno.ENOSPC, errno.EDQUOT) else UnwritableError
        raise kind(f"cannot write {path}: {cause.strerror or cause}; {remedy}") from error


def explanation(error: OSError) -> str:
    """Return one line on an error of the operating system: the file, what is wrong with it, and what to do."""
    remedies = {
        errno.ENOSPC: "free space on its disk",
        errno.EDQUOT: "free space within your quota",
        errno.EACCES: "get the right to use it",
        errno.EPERM: "get the right to use it",
        errno.EROFS: "work on a copy of the project that can be written",
        errno.ENOENT: "make or restore it",
    }
    remedy = remedies.get(error.errno or 0, "mend that")
    place = error.filename or "standard output, or a file"
    return f"{place}: {error.strerror or error}; {remedy} and run the same command again"


def discard(path: Path) -> None:
    """Remove a temporary file if that is possible."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename within `folder` itself survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_alone(temporary: Path) -> BinaryIO:
    """Open a temporary file, emptied, as soon as no other process writes it."""
    while True:
        file = open(temporary, "wb", opener=_without_truncating)  # noqa: SIM115 - the caller closes it
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        # The process that held the lock may have renamed or removed the file that was opened.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), temporary.stat()):
                file.truncate()
                return file
        file.close()


def _without_truncating(name: str, flags: int) -> int:
    return os.open(name, flags & ~os.O_TRUNC, 0o666)
