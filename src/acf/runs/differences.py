"""What differs between two recipes: settings, inputs, files of code."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from acf.errors import shown

Kind = Literal["settings", "input", "code"]


@dataclass(frozen=True)
class Difference:
    """One thing that differs.

    Attributes:
        kind: what it is.
        name: key of a setting with dots, name of an input, or path of a file below the package.
        before: value, or content hash; None where it was absent.
        now: the same of the other recipe.
    """

    kind: Kind
    name: str
    before: Any
    now: Any


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Difference]:
    """Return what differs between what two recipes of one stage are made of (`acf.runs.recipe.recipe_parts`)."""
    kinds: tuple[tuple[Kind, str], ...] = (("settings", "settings"), ("input", "inputs"), ("code", "code"))
    found = []
    for kind, key in kinds:
        old, new = (dict(_leaves(parts[key])) for parts in (before, now))
        for name in [*new, *(name for name in old if name not in new)]:
            # Beside keys below it on the other side, an empty section is no difference of its own.
            filled = kind == "settings" and any(other.startswith(f"{name}.") for other in (*old, *new))
            if not filled and (name in old, old.get(name)) != (name in new, new.get(name)):
                found.append(Difference(kind, name, old.get(name), new.get(name)))
    return found


def in_words(found: list[Difference]) -> list[str]:
    """Return a clause for each setting and input that differs, and one for all the code."""
    clauses = []
    for one in found:
        if one.kind == "settings":
            clauses.append(f"{one.name} was {_value(one.before)} and is {_value(one.now)}")
        elif one.kind == "input":
            before, now = (str(digest)[:8] if digest else "absent" for digest in (one.before, one.now))
            clauses.append(f"the input `{one.name}` has another content ({before}, now {now})")
    if files := [one for one in found if one.kind == "code"]:
        clauses.append(f"code differs in {_places(files)}")
    return clauses


MOST_FILES = 3


def _places(files: list[Difference]) -> str:
    """Name a few files, or the folders of many."""
    if len(files) <= MOST_FILES:
        ways = {(True, False): " (new)", (False, True): " (no longer used)"}
        return ", ".join(f"{one.name}{ways.get((one.before is None, one.now is None), '')}" for one in files)
    folders: dict[str, int] = {}
    for one in files:
        folder = one.name.rpartition("/")[0] or "."
        folders[folder] = folders.get(folder, 0) + 1
    return ", ".join(f"{folder} ({count} file{'s' * (count > 1)})" for folder, count in folders.items())


def _value(value: Any) -> str:
    return "not set" if value is None else shown(value)


def _leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values that are no mappings; file names have no parts."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value
