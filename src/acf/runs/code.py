"""The source files that a stage depends on: those below its folders that it imports, directly or through others."""

import ast
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from acf.errors import AcfError
from acf.registry import ANALYSES

PACKAGE = Path(__file__).resolve().parents[1]

_FLOWS = ("lipschitz", "flows", "-flows/publishing", "-flows/distribution.py")
_MEASURING = ("data/prepared", *_FLOWS, "evaluation", "-evaluation/analyses")

CODE: dict[str, tuple[str, ...]] = {
    "prepare": ("stages/prepare.py", "data"),
    "train": ("stages/train.py", "data/prepared", *_FLOWS, "training"),
    "evaluate": ("stages/evaluate.py", *_MEASURING),
    "baselines": ("stages/baselines.py", *_MEASURING),
    "sample": ("stages/sample.py", *_MEASURING),
    **{
        name: ("stages/analyse.py", *_MEASURING, f"{place.partition(':')[0].removeprefix('acf.').replace('.', '/')}.py")
        for name, place in ANALYSES.items()
    },
    "report": (
        *("stages/report.py", "stages/experiment_results.py", "stages/analysis_sections.py"),
        *("stages/sample_sections.py", "stages/measured_files.py", "reporting"),
    ),
    "index": ("stages/index.py", "reporting"),
}
"""Files and folders of the package that bound what each stage depends on, as docs/architecture.md lists them.

The first place is the file that the stage begins in. Where two places hold a file, the longer one decides; a place
after a minus holds none that count.
"""


PLACE = re.compile(r"acf(\.\w+)+(:\w+)?", re.ASCII)
"""A string that names a module, or something in it, as the registry has them."""


BODIES = {"body", "orelse", "finalbody"}
"""Fields of a syntax tree that hold statements, docstrings among them."""


def code_files(stage: str, code: Path = PACKAGE, known: dict[str, "Source"] | None = None) -> dict[str, "Source"]:
    """Return the files that `stage` depends on, by their path below `code`, the folder of the package.

    These are the modules in the places of `CODE` that the stage's file reaches by imports, wherever they stand in a
    file, or by names in strings, as the registry has them ("acf.flows.build:build"); and the data files there that
    one of these modules, or a data file that counts, names ("report.html.j2"). Whatever else lies in the folders, such
    as the files of editors, does not count.

    Args:
        stage: a key of `CODE`.
        code: the folder.
        known: files that earlier calls have read, which are not read again; what this call reads is added.

    Raises:
        KeyError: unknown stage.
        AcfError: a module cannot be read as Python; names the file and the line.
    """
    places = CODE[stage]
    known = {} if known is None else known
    reached = _reached(places[0], code, known)
    counted = {name: source for name, source in reached.items() if _is_within(name, places)}
    others = {name: known.setdefault(name, Source(path)) for name, path in _data_files(places, code)}
    while named := [n for n in others if any(other.names(Path(n).name) for other in counted.values())]:
        counted |= {name: others.pop(name) for name in named}
    return dict(sorted(counted.items()))


class Source:
    """One file of the package.

    Args:
        path: where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def tree(self) -> ast.Module:
        """The syntax tree of a module, without docstrings.

        Raises:
            AcfError: it is not Python; names the file and the line.
        """
        return self._parsed[0]

    @property
    def imports(self) -> frozenset[str]:
        """The dotted names that a module imports or has in strings; some are names within modules."""
        return self._parsed[1]

    def names(self, file: str) -> bool:
        """Whether the name of the data file `file` occurs in this file."""
        texts = self._parsed[2] if self.path.suffix == ".py" else [self.path.read_text(errors="replace")]
        whole = re.compile(rf"(?<![\w.-]){re.escape(file)}(?![\w.-])")
        return any(whole.search(text) for text in texts)

    @cached_property
    def _parsed(self) -> tuple[ast.Module, frozenset[str], frozenset[str]]:
        """The tree of a module, the dotted names that it imports, and its strings."""
        try:
            tree = ast.parse(self.path.read_bytes(), filename=str(self.path))
        except (SyntaxError, ValueError) as error:  # ValueError: a null byte
            where = f"{self.path}:{getattr(error, 'lineno', None) or 1}"
            raise AcfError(
                f"{where}: {getattr(error, 'msg', error)}; mend the file, the results depend on it"
            ) from None
        strings: set[str] = set()
        imports: set[str] = set()
        for node in ast.walk(tree):
            for field in BODIES & node.__dict__.keys():
                if isinstance(body := getattr(node, field), list):
                    setattr(node, field, [item for item in body if not _is_bare_string(item)])
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                strings.add(node.value)
            elif isinstance(node, ast.Import):
                imports.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = f"{node.module}." if node.module else ""
                imports.update(f"{'.' * node.level}{base}{alias.name}" for alias in node.names)
        imports.update(text.partition(":")[0] for text in strings if PLACE.fullmatch(text))
        return tree, frozenset(imports), frozenset(strings)


def _reached(start: str, code: Path, known: dict[str, Source]) -> dict[str, Source]:
    """Return all modules of the package that importing the file `start` can import, by their path below `code`."""
    found: dict[str, Source] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = source = known.setdefault(name, Source(code / name))
        package = ["acf", *Path(name).parts[:-1]]
        for module in [".", *source.imports]:
            waiting.extend(_files_of(_absolute(module, package), code))
    return found


def _absolute(module: str, package: list[str]) -> list[str]:
    """Return the parts of a module's name, which is relative to `package` if it begins with dots."""
    level = len(module) - len(module.lstrip("."))
    above = package[: len(package) - level + 1] if level else []
    return [*above, *filter(None, module.split("."))]


def _files_of(module: list[str], code: Path) -> Iterator[str]:
    """Yield the files that importing `module` runs: those of the packages around it and its own."""
    top, *parts = module
    if top != "acf":
        return
    for depth in range(len(parts) + 1):
        path = "/".join(parts[:depth])
        yield from (name for name in (f"{path}/__init__.py".lstrip("/"), f"{path}.py") if (code / name).is_file())


def _data_files(places: tuple[str, ...], code: Path) -> Iterator[tuple[str, Path]]:
    for path in (p for place in places for p in (code / place.removeprefix("-")).rglob("[!.]*.*")):
        name = path.relative_to(code)
        hidden = any(part.startswith(".") for part in name.parts)
        if path.suffix not in (".py", ".pyc") and not hidden and path.is_file() and _is_within(name.as_posix(), places):
            yield name.as_posix(), path


def _is_within(name: str, places: tuple[str, ...]) -> bool:
    """Whether the longest of the places that hold a file is one whose files count."""
    holding = [place for place in places if f"{name}/".startswith(f"{place.removeprefix('-')}/")]
    return bool(holding) and not max(holding, key=lambda place: len(place.removeprefix("-"))).startswith("-")


def _is_bare_string(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
