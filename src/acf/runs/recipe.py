"""The recipe of a computation: one hash of everything its outputs depend on."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acf.runs.code import CODE, PACKAGE, code_files
from acf.runs.source import Source, json_hash


def recipe(
    stage: str,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    code: Path = PACKAGE,
    hashes: Mapping[str, str] | None = None,
) -> str:
    """Return the name of a computation: 20 hexadecimal digits.

    Args:
        stage: a key of `acf.runs.code.CODE`.
        settings: resolved settings; anything JSON can hold. The order of keys does not count.
        inputs: content hash per input, as `file_hash` gives it.
        code: folder of the package; of its files, those count that `code_files` returns.
        hashes: what `code_hashes` returned, for a caller that names many computations of one stage.

    Raises:
        KeyError: unknown stage.
        TypeError: a setting that JSON cannot hold.
        AcfError: a module cannot be read as Python; names the file and the line.
    """
    return recipe_name(recipe_parts(stage, settings, inputs, code_hashes(stage, code) if hashes is None else hashes))


def code_hashes(stage: str, code: Path = PACKAGE) -> dict[str, str]:
    """Return the hash of each file that `stage` depends on, comments and docstrings left out, by its path.

    Raises:
        KeyError: unknown stage.
        AcfError: a module cannot be read as Python; names the file and the line.
    """
    return {name: source.hash for name, source in code_files(stage, code).items()}


def recipe_parts(
    stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str], code: Mapping[str, str]
) -> dict[str, Any]:
    """Return what a recipe is made of, as a JSON file holds it.

    Args:
        stage: a key of `acf.runs.code.CODE`.
        settings: resolved settings; anything JSON can hold.
        inputs: content hash per input.
        code: hash per file, as `code_hashes` gives them.

    Raises:
        TypeError: a setting that JSON cannot hold.
    """
    parts = {"stage": stage, "settings": settings, "inputs": inputs, "code": code}
    return json.loads(json.dumps(parts, allow_nan=False))


def recipe_name(parts: Mapping[str, Any]) -> str:
    """Return the recipe that is made of `parts`: 20 hexadecimal digits."""
    return json_hash(parts)[:20]


def all_code_hashes(code: Path = PACKAGE) -> dict[str, dict[str, str]]:
    """Return what `code_hashes` returns for each stage; every file is read once.

    Raises:
        AcfError: as `code_hashes`.
    """
    known: dict[str, Source] = {}
    files = {stage: code_files(stage, code, known) for stage in CODE}
    counted = {name: source for sources in files.values() for name, source in sources.items()}
    hashes = {name: source.hash for name, source in counted.items()}
    return {stage: {name: hashes[name] for name in sources} for stage, sources in files.items()}


def file_hash(path: Path) -> str:
    """Return the sha256 of the file's content, in hexadecimal.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
