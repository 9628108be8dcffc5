"""Reading `params.yaml`: plain values with the line of each, or one sentence that says why not.

YAML 1.1 and YAML 1.2 read `yes`, `010`, `1e-3` and `1:30` differently, and DVC (1.2) reads the file too. So a plain
word is taken only where both must mean the same; `1e-3` is the number that DVC and people see in it. Keys are text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from acf.errors import ConfigError, shown

KeyPath = tuple[str | int, ...]
"""Where a value stands in the file: its keys, outermost first."""

MOST_VALUES = 100_000
"""Of a file with its aliases written out; a few lines of aliases of aliases stand for more than fit in memory."""

_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?((\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)")
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_OTHER_NUMBER = re.compile(r"[-+]?(0o)?[0-9][0-9_]*")
_TAG = "tag:yaml.org,2002:"
_YAML_1_1 = yaml.resolver.Resolver()
MOST_LEVELS = 50


def read_yaml(path: Path) -> tuple[Any, dict[KeyPath, int]]:
    """Return the content of a YAML file and the line of each key and list entry, from 1.

    Raises:
        ConfigError: the file is missing or not YAML, holds a key twice, a tag, a value that programs read differently,
            or an alias of what contains it; the message has the line.
    """
    try:
        node = yaml.compose(path.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    except FileNotFoundError:
        raise ConfigError(f"{path} not found; run acf in the project's top folder") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: cannot be read as YAML: the line is not in UTF-8; store it so") from None
    except RecursionError:
        raise ConfigError(f"{path} cannot be read as YAML: it is nested too deeply") from None
    except yaml.YAMLError as error:
        raise ConfigError(_yaml_fault(path, error)) from None
    reader = _Reader(path)
    return reader.value(node, ()) if node is not None else None, reader.lines


def plain_value(text: str) -> Any:
    """Return the value of a word without quotes: None, a boolean, a number or the text itself.

    Raises:
        ValueError: versions of YAML read it differently; the message says what to write.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text) or _SPECIAL.fullmatch(text):
        return float(text.replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf").replace(".n", "n"))
    if _OTHER_NUMBER.fullmatch(text) or _resolved(text) != "str":
        what = "true or false" if _resolved(text) == "bool" else "numbers in decimal digits"
        raise ValueError(f"{shown(text)} is not read alike by all programs; write {what}, and text in quotes")
    return text


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"a whole number of {len(text)} digits is more than can be used") from None


def _resolved(text: str) -> str:
    """Return what YAML 1.1 makes of a plain word: `str`, `bool`, `int`, `float`, `timestamp`, ..."""
    return str(_YAML_1_1.resolve(yaml.ScalarNode, text, (True, False))).removeprefix(_TAG)


def _yaml_fault(path: Path, error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        reason = " ".join(part for part in (error.context, error.problem) if part)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        return f"{place}: cannot be read as YAML: {reason}".replace("\n", " ")
    reason = getattr(error, "reason", "damaged")
    return f"{path} cannot be read as YAML: character {getattr(error, 'position', 0) + 1}: {reason}"


class _Reader:
    """Turns nodes into values."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[KeyPath, int] = {}
        self._within: list[yaml.Node] = []
        self._count = 0

    def value(self, node: yaml.Node, at: KeyPath) -> Any:
        self.lines.setdefault(at, node.start_mark.line + 1)
        self._count += 1
        if self._count > MOST_VALUES:
            raise ConfigError(f"{self.path}: with its aliases written out it has more than {MOST_VALUES:,} values")
        if any(node is parent for parent in self._within):
            raise self._fault(node, "an alias stands for a value that it is a part of")
        if len(self._within) >= MOST_LEVELS:
            raise self._fault(node, "the file is nested too deeply")
        self._within.append(node)
        try:
            return self._content(node, at)
        finally:
            self._within.pop()

    def _content(self, node: yaml.Node, at: KeyPath) -> Any:
        if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
            return self._mapping(node, at)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
            return [self.value(entry, (*at, index)) for index, entry in enumerate(node.value)]
        if not isinstance(node, yaml.ScalarNode) or self._tagged(node):
            raise self._fault(node, f"the tag {shown(node.tag)} is not used here; write the plain value")
        if node.style is not None:
            return node.value
        try:
            return plain_value(node.value)
        except ValueError as error:
            raise self._fault(node, str(error)) from None

    def _mapping(self, node: yaml.MappingNode, at: KeyPath) -> dict[str, Any]:
        inherited: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag == f"{_TAG}merge":
                inherited = self._inherited(value, at) | inherited
        for key, value in node.value:
            if key.tag == f"{_TAG}merge":
                continue
            if not isinstance(key, yaml.ScalarNode) or self._tagged(key):
                raise self._fault(key, "a key must be a plain word, without a tag")
            if key.value in own:
                raise self._fault(key, f"key {shown(key.value)} stands twice")
            self.lines[(*at, key.value)] = key.start_mark.line + 1
            own[key.value] = self.value(value, (*at, key.value))
        return inherited | own

    def _inherited(self, node: yaml.Node, at: KeyPath) -> dict[str, Any]:
        """Return the keys that `<<` brings from one mapping or from a list of them, of which the first wins."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for source in reversed(sources):
            content = self.value(source, at)
            if not isinstance(content, dict):
                raise self._fault(node, "<< takes a mapping, or a list of mappings")
            merged |= content
        return merged

    def _tagged(self, node: yaml.ScalarNode) -> bool:
        plain = node.style is None
        return bool(node.tag != _YAML_1_1.resolve(yaml.ScalarNode, node.value, (plain, not plain)))

    def _fault(self, node: yaml.Node, message: str) -> ConfigError:
        return ConfigError(f"{self.path}:{node.start_mark.line + 1}: {message}")
