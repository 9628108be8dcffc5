"""Small disks that can be filled: tmpfs on folders of a project, which only root may mount."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

SIZE = "16m"
FILLER = ".filler"


@contextmanager
def small_disks(folders: Sequence[Path]) -> Iterator[None]:
    """Mount an empty small disk on each folder, for the time of the context; without the right to, nothing is done."""
    with ExitStack() as stack:
        for folder in folders if os.geteuid() == 0 else []:
            folder.mkdir(parents=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], check=True)
            stack.callback(subprocess.run, ["umount", "--lazy", folder], check=True)
        yield


@contextmanager
def fill(folder: Path) -> Iterator[None]:
    """Leave no byte free on the disk of a folder, for the time of the context."""
    filler = folder / FILLER
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    try:
        yield
    finally:
        filler.unlink(missing_ok=True)
