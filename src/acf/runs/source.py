"""One file of the package: what it imports, which strings it has, and a hash without comments and docstrings.

Equal contents are parsed once in a process. `json_hash` is also that of recipes.
"""

import ast
import hashlib
import json
import re
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from acf.errors import AcfError

PLACE = re.compile(r"acf(\.\w+)+(:\w+)?", re.ASCII)
"""A string that names a module, or something in it, as the registry has them."""

BODIES = ("body", "orelse", "finalbody")
"""Fields of a syntax tree that hold statements, docstrings among them."""

CONTENTS = 2048
"""How many contents are remembered, which is more than the package has."""


class Source:
    """One file of the package: a module as it is when it is first asked for something, another file as it is now.

    Args:
        path: where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def hash(self) -> str:
        """The sha256, in hexadecimal: of a module's syntax tree without docstrings, of another file's content.

        Raises:
            AcfError: a module is not Python; names the file and the line.
        """
        if self.path.suffix == ".py":
            _ = self._names  # which refuses what is not Python
            return tree_hash(self._content)
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @property
    def imports(self) -> frozenset[str]:
        """The dotted names that a module imports or has in strings; some are names within modules.

        Raises:
            AcfError: as `hash`.
        """
        return self._names.imports

    def names(self, file: str) -> bool:
        """Whether the name of the data file `file` occurs in this file; errors as `hash`."""
        texts = self._names.strings if self.path.suffix == ".py" else [self.path.read_text(errors="replace")]
        whole = re.compile(rf"(?<![\w.-]){re.escape(file)}(?![\w.-])")
        return any(file in text and whole.search(text) for text in texts)

    @cached_property
    def _content(self) -> bytes:
        return self.path.read_bytes()

    @property
    def _names(self) -> "Names":
        try:
            return names_in(self._content)
        except (SyntaxError, ValueError) as error:  # ValueError: a null byte
            where = f"{self.path}:{getattr(error, 'lineno', None) or 1}"
            raise AcfError(
                f"{where}: {getattr(error, 'msg', error)}; mend the file, the results depend on it"
            ) from None


class Names(NamedTuple):
    """The dotted names that a module imports or has in strings, and all of its strings."""

    imports: frozenset[str]
    strings: frozenset[str]


@lru_cache(CONTENTS)
def names_in(content: bytes) -> Names:
    """Return the names in the content of a module.

    Raises:
        SyntaxError, ValueError: the content is not Python.
    """
    strings: set[str] = set()
    imports: set[str] = set()
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            strings.add(node.value)
        elif isinstance(node, ast.Import):
            imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = f"{node.module}." if node.module else ""
            imports.update(f"{'.' * node.level}{base}{alias.name}" for alias in node.names)
    imports.update(text.partition(":")[0] for text in strings if PLACE.fullmatch(text))
    return Names(frozenset(imports), frozenset(strings))


@lru_cache(CONTENTS)
def tree_hash(content: bytes) -> str:
    """Return the sha256 of a module's syntax tree without docstrings, in hexadecimal; errors as `names_in`."""
    return json_hash(_plain(ast.parse(content)))


def json_hash(value: Any) -> str:
    """Return the sha256 of what JSON can hold, in hexadecimal; the order of keys does not count."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    """Return a syntax tree as lists, without positions, docstrings and empty fields (Pythons differ)."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, ast.AST):
        return [type(value).__name__, repr(value)]
    found = {}
    for name in value._fields:
        field = getattr(value, name, None)
        if name in BODIES and isinstance(field, list):
            field = [item for item in field if not _is_bare_string(item)]
        if field is not None and field != [] and name not in ("kind", "type_comment"):
            found[name] = _plain(field)
    return [type(value).__name__, found]


def _is_bare_string(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
