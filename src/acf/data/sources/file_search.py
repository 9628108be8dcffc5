"""All files of a folder, links followed, each once."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from acf.errors import DataError

HIDDEN = "hidden files or folders"
TWICE = "links to what is read elsewhere"
NO_FILE = "things that are neither files nor folders"


@dataclass
class Found:
    """Files in no order, and the numbers of what was left out, by what it is."""

    files: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def find_files(folder: Path) -> Found:
    """Return the files of `folder` and its subfolders, without hidden ones.

    Links to files and folders are followed. What lies in the folder itself goes before what a link leads to, and links
    count in the order of their paths, so that the same files are found on every machine. A link to something that has
    been found already, such as a folder around it, is left out.

    Raises:
        DataError: the folder is missing, a link leads nowhere, or a part of it cannot be read; names it.
    """
    found = Found()
    seen: set[Path] = set()
    waiting = [folder]
    try:
        if not folder.exists():
            raise DataError(f"{folder} not found; put the images there, or mend `folder` of the data set's class")
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder; mend `folder` of the data set's class")
        while waiting:
            links: list[Path] = []
            for top in waiting:
                _walk(top, found, seen, links)
            waiting = sorted(links)
    except OSError as error:
        raise DataError(f"{error.filename or folder} cannot be read: {error.strerror or error}") from None
    return found


def _walk(top: Path, found: Found, seen: set[Path], links: list[Path]) -> None:
    """Add what `top` is or holds to `found`, and links below it to `links`."""
    pending = [(top, top.resolve(strict=True))]
    while pending:
        path, real = pending.pop()
        if real in seen:
            found.left_out[TWICE] += 1
            continue
        seen.add(real)
        if path.is_file():
            found.files.append(path)
            continue
        if not path.is_dir():
            found.left_out[NO_FILE] += 1
            continue
        for entry in path.iterdir():
            if entry.name.startswith("."):
                found.left_out[HIDDEN] += 1
            elif not entry.is_symlink():
                pending.append((entry, real / entry.name))
            elif entry.exists():
                links.append(entry)
            else:
                raise DataError(f"{entry} is a link to nothing; mend or remove it")
