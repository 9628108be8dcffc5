"""Writing a folder so that its name only ever holds the old content or the whole of the new."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from acf.runs.files import sync_folder, writing

NEW, OLD = ".new", ".old"


def replace_folder(folder: Path, files: Mapping[str, bytes], lock: Path) -> None:
    """Write `files` to a folder beside `folder` and put it in its place; what was there is removed.

    A link to a folder stays a link. Links within the folder, to a cache that must not change, are never written
    through. A process that is killed leaves the old folder or the new one; if it stands under another name for that
    moment, the next call puts it back, and removes what else was left.

    Args:
        folder: what to replace; its parent is made.
        files: contents by path within the folder.
        lock: a file that a second process waits for; it stays.

    Raises:
        UnwritableError: a file cannot be written; the old folder is as it was.
    """
    place = folder.resolve() if folder.is_symlink() else folder
    new, old = (place.with_name(f".{place.name}{ending}") for ending in (NEW, OLD))
    with writing(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        held = FileLock(lock).acquire()
    with held:
        try:
            with writing(folder):
                place.parent.mkdir(parents=True, exist_ok=True)
                _sweep(place, new, old)
            for name, content in files.items():
                with writing(folder / name):
                    _write(new / name, content)
            with writing(folder):
                if place.exists():
                    place.rename(old)
                new.rename(place)
                sync_folder(place.parent)
        finally:
            _sweep(place, new, old)


def _sweep(place: Path, new: Path, old: Path) -> None:
    """Put back the old folder if none is in its place, and remove what else is left of a replacement."""
    if old.exists() and not place.exists():
        old.rename(place)
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
