"""Which code has made which prepared data: notes by the manifest's hash, since data themselves do not say it."""

import json
from collections.abc import Mapping
from pathlib import Path

from acf.data.prepared.manifest import manifest_path
from acf.runs.files import write_atomically
from acf.runs.recipe import file_hash, recipe
from acf.stages.code_notes import FOLDER

NOTES = Path(".acf/prepared")


def note_conversion(dataset: str, data: Path, hashes: Mapping[str, str]) -> None:
    """Note that the code of these hashes has made what lies in `data`/<dataset>.

    Raises:
        UnwritableError: the note cannot be written.
    """
    folder = _notes(dataset, data)
    write_atomically(folder / recipe("prepare", {}, {}, hashes=hashes), b"")


def is_conversion(dataset: str, data: Path, hashes: Mapping[str, str]) -> bool:
    """Whether the code of these hashes has made what lies in `data`/<dataset>.

    Data that are seen for the first time, as after `dvc pull`, were made by the code that DVC has noted beside them;
    where it has noted none, by the present code.

    Raises:
        OSError: there is no manifest.
        UnwritableError: the note cannot be written.
    """
    folder = _notes(dataset, data)
    if not folder.is_dir():
        noted = data.parent / FOLDER / "prepare.json"
        if noted.is_file() and json.loads(noted.read_bytes()) != hashes:
            return False
        write_atomically(folder / recipe("prepare", {}, {}, hashes=hashes), b"")
    return (folder / recipe("prepare", {}, {}, hashes=hashes)).is_file()


def _notes(dataset: str, data: Path) -> Path:
    return data.parent / NOTES / dataset / file_hash(manifest_path(dataset, data))[:20]
