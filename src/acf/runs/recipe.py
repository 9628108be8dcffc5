"""The recipe of a computation: one hash of everything its outputs depend on."""

import ast
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]

CODE: dict[str, tuple[str, ...]] = {
    "prepare": ("stages/prepare.py", "data"),
    "train": ("stages/train.py", "data/prepared", "lipschitz", "flows", "training"),
    "evaluate": ("stages/evaluate.py", "data/prepared", "lipschitz", "flows", "evaluation"),
    "baselines": ("stages/baselines.py", "data/prepared", "lipschitz", "flows", "evaluation"),
    "sample": ("stages/sample.py", "data/prepared", "lipschitz", "flows", "evaluation"),
    "report": ("stages/report.py", "reporting"),
    "index": ("stages/index.py", "reporting"),
}
"""Files and folders of the package each stage depends on, as docs/architecture.md lists them."""


def recipe(stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str], code: Path = PACKAGE) -> str:
    """Return the name of a computation: 20 hexadecimal digits.

    Args:
        stage: a key of `CODE`.
        settings: resolved settings; anything JSON can hold. The order of keys does not count.
        inputs: content hash per input, as `file_hash` gives it.
        code: folder of the package.

    Raises:
        KeyError: unknown stage.
        TypeError: a setting that JSON cannot hold.
    """
    parts = {
        "stage": stage,
        "settings": settings,
        "inputs": inputs,
        "code": {place: _code_hash(code / place) for place in CODE[stage]},
    }
    return _digest(parts)[:20]


def file_hash(path: Path) -> str:
    """Return the sha256 of the file's content, in hexadecimal.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _code_hash(place: Path) -> str:
    if place.suffix:
        return _source_hash(place)
    return _folder_hash(place)


def _folder_hash(folder: Path) -> str:
    files = (p for p in folder.rglob("[!.]*") if p.is_file() and p.parent.name != "__pycache__")
    return _digest({p.relative_to(folder).as_posix(): _source_hash(p) for p in files})


def _source_hash(path: Path) -> str:
    if path.suffix != ".py":
        return file_hash(path)
    return _digest(_plain(ast.parse(path.read_bytes(), filename=str(path))))


def _plain(value: Any) -> Any:
    """Return a syntax tree as lists, without positions, docstrings and empty fields (Pythons differ)."""
    if isinstance(value, ast.AST):
        fields = {
            name: _plain(field)
            for name, field in ast.iter_fields(value)
            if field not in (None, []) and name not in ("kind", "type_comment")
        }
        return [type(value).__name__, fields]
    if isinstance(value, list):
        return [_plain(item) for item in value if not _is_bare_string(item)]
    return [type(value).__name__, repr(value)]


def _is_bare_string(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
