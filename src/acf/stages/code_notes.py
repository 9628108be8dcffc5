"""The command `acf code`: the hashes of the code that each stage depends on, in files that DVC watches.

DVC compares the bytes of files. Through these files it sees the code as a recipe does: without comments and docstrings,
and without what a stage does not import.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from acf.runs.files import write_if_changed
from acf.runs.recipe import all_code_hashes
from acf.stages.project import Project

FOLDER = Path("code")


def write_code(root: Path = Path(".")) -> None:
    """Write code/<stage>.json for every stage: a hash per file of the package; what has not changed is not written.

    Raises:
        ConfigError: no project.
        AcfError: a module cannot be read as Python, or a file cannot be written.
    """
    folder = Project(root).root / FOLDER
    changed = [stage for stage, hashes in all_code_hashes().items() if _write(folder / f"{stage}.json", hashes)]
    print(f"{folder}: {'changed: ' + ', '.join(changed) if changed else 'up to date'}", flush=True)


def note_code(stage: str, hashes: Mapping[str, str], root: Path) -> None:
    """Have the file of `stage` say what code is about to run, where there is such a file.

    DVC reads it again after the stage. So it knows which code made the outputs, even if the files of the code changed
    after `dvc repro` began, and were changed back before the next one.

    Raises:
        UnwritableError: the file cannot be written.
    """
    path = root / FOLDER / f"{stage}.json"
    if path.is_file():
        _write(path, hashes)


def _write(path: Path, hashes: Mapping[str, str]) -> bool:
    return write_if_changed(path, (json.dumps(hashes, indent=1) + "\n").encode())
