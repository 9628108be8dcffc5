"""The source files of one data set: fetched or put there by hand, and known by their hashes from the first time on."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from acf.data.fetch import MIRROR_VARIABLE, Remote, fetch, lies_there
from acf.data.files import replacing
from acf.data.prepared.manifest import prepare_hint
from acf.errors import DataError

HASHES = "data-hashes.json"


class Downloads:
    """Gives the files of a data set, verified.

    Where the publisher gives no checksum, the hash of the first file that could be converted is written to the
    project's `data-hashes.json`, to be committed with it; from then on every other content is refused.

    Args:
        dataset: its name.
        folder: where files are kept.
        hashes: `data-hashes.json`.
    """

    def __init__(self, dataset: str, folder: Path, hashes: Path) -> None:
        self.dataset, self.folder, self.hashes = dataset, folder, hashes
        self._new: dict[str, str] = {}

    def fetch(self, remote: Remote) -> Path:
        """Return the path of a verified copy of the file.

        Raises:
            DataError: it cannot be had, or its content is not what it should be.
        """
        if remote.sha256 or remote.md5:
            return fetch(remote, self.dataset, self.folder)
        known = self._known().get(remote.name)
        if known:
            return fetch(replace(remote, sha256=known), self.dataset, self.folder)
        path = fetch(remote, self.dataset, self.folder)
        with path.open("rb") as file:
            self._new[remote.name] = hashlib.file_digest(file, "sha256").hexdigest()
        return path

    def by_hand(self, roads: Mapping[str, Sequence[Remote]], how: str) -> tuple[str, list[Path]]:
        """Return the first road whose files all lie here or in the mirror, and the files; else say which to put where.

        Args:
            roads: files by name of the road.
            how: how a person gets them.

        Raises:
            DataError: no road is complete; says what is missing.
        """
        lines = []
        for road, remotes in roads.items():
            missing = [remote.name for remote in remotes if not lies_there(remote, self.dataset, self.folder)]
            if not missing:
                return road, [self.fetch(remote) for remote in remotes]
            lines.append(f"  {road}: {', '.join(remote.name for remote in remotes)} (missing: {', '.join(missing)})")
        raise DataError(
            f"{self.dataset} has to be downloaded by hand: {how}\nPut the files of one line into {self.folder}/, or "
            f"into a folder that {MIRROR_VARIABLE} names, then {prepare_hint(self.dataset)}\n" + "\n".join(lines)
        )

    def record(self) -> None:
        """Write down the hashes of files without a published one; to be called when they have been converted."""
        if not self._new:
            return
        hashes = self._all()
        hashes[self.dataset] = self._known() | self._new
        with replacing(self.hashes) as file:
            file.write((json.dumps(hashes, indent=2, sort_keys=True) + "\n").encode())
        print(f"wrote {self.hashes}: first verified hashes of {', '.join(self._new)}; commit it")

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
