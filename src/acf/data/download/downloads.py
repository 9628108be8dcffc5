"""The source files of one data set, fetched or put in place by hand, and verified by their hashes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from acf.data.download.fetch import MIRROR_VARIABLE, Remote, fetch, lies_there
from acf.data.prepared.manifest import prepare_hint
from acf.errors import DataError, UnwritableError
from acf.runs.files import discard, replacing, writing

HASHES = "data-hashes.json"
DOWNLOADS = ".downloads"
"""Folder within `data/` that keeps what was fetched."""


class Downloads:
    """Gives the files of a data set, verified.

    Where the publisher gives no checksum, the hash of the first file that could be converted is written to the
    project's `data-hashes.json`, to be committed with it; from then on every other content is refused.

    Args:
        dataset: its name.
        folder: where files are kept.
        hashes: `data-hashes.json`.

    Attributes:
        used: the source files, for messages.
    """

    def __init__(self, dataset: str, folder: Path, hashes: Path) -> None:
        self.dataset, self.folder, self.hashes = dataset, folder, hashes
        self.used: list[Path] = []
        self._new: dict[str, str] = {}
        self._fetched: list[Path] = []

    def fetch(self, remote: Remote) -> Path:
        """Return the path of a verified copy of the file.

        Raises:
            DataError: it cannot be had, or its content is not what it should be.
        """
        if not (remote.sha256 or remote.md5) and (known := self._known().get(remote.name)):
            remote = replace(remote, sha256=known)
        lay_there = (self.folder / remote.name).exists()
        path = fetch(remote, self.dataset, self.folder)
        if path not in self.used:
            self.used.append(path)
        if remote.sha256 or remote.md5:
            return path
        if path.parent == self.folder and not lay_there:
            self._fetched.append(path)
        with path.open("rb") as file:
            self._new[remote.name] = hashlib.file_digest(file, "sha256").hexdigest()
        return path

    def by_hand(self, alternatives: Mapping[str, Sequence[Remote]], how: str) -> tuple[str, list[Path]]:
        """Return the name of the first alternative whose files are all present, here or in the mirror, and its files.

        Args:
            alternatives: the files of each form in which the data set is handed out, by the name of the form.
            how: how a person gets them.

        Raises:
            DataError: no alternative is complete; says which files to put where.
        """
        lines = []
        for name, remotes in alternatives.items():
            missing = [remote.name for remote in remotes if not lies_there(remote, self.dataset, self.folder)]
            if not missing:
                return name, [self.fetch(remote) for remote in remotes]
            lines.append(f"  {name}: {', '.join(remote.name for remote in remotes)} (missing: {', '.join(missing)})")
        raise DataError(
            f"{self.dataset} has to be downloaded by hand: {how}\nPut the files of one line into {self.folder}/, or "
            f"into a folder that {MIRROR_VARIABLE} names, then {prepare_hint(self.dataset)}\n" + "\n".join(lines)
        )

    def record(self) -> None:
        """Write the hashes of files that have no published one to data-hashes.json; call it after their conversion."""
        if not self._new:
            return
        lock = self.folder.parent / "lock"
        with writing(lock), FileLock(lock):  # other data sets may be prepared at the same time
            hashes = self._all()
            hashes[self.dataset] = hashes.get(self.dataset, {}) | self._new
            with replacing(self.hashes) as file:
                file.write((json.dumps(hashes, indent=2, sort_keys=True) + "\n").encode())
        print(f"wrote {self.hashes}: first verified hashes of {', '.join(self._new)}; commit it")

    def blame(self, error: DataError) -> DataError:
        """Return the error of a failed conversion with advice on source files that have no published checksum.

        Those fetched just now are removed, so that the next run fetches them anew; others are left to their owner.
        """
        if isinstance(error, UnwritableError) or not self._new:
            return error
        for path in self._fetched:
            discard(path)
        names = ", ".join(map(str, self._fetched or self.used))
        remedy = "removed, so that the next run fetches it anew" if self._fetched else "delete or replace it"
        return DataError(f"{error} ({names} has no published checksum: {remedy})")

    def _known(self) -> dict[str, str]:
        return self._all().get(self.dataset, {})

    def _all(self) -> dict[str, dict[str, str]]:
        try:
            hashes = json.loads(self.hashes.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise DataError(f"{self.hashes} is damaged: {error}; restore it from version control") from None
        if not isinstance(hashes, dict) or not all(isinstance(entry, dict) for entry in hashes.values()):
            raise DataError(f"{self.hashes} is damaged; restore it from version control")
        return hashes
