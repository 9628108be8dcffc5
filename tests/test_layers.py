"""Imports within the package run downwards only, in the order that docs/architecture.md gives."""

import ast
from collections.abc import Iterator
from pathlib import Path

import acf

PACKAGE = Path(acf.__file__).parent
LAYERS = (
    {"__main__"},
    {"cli"},
    {"stages"},
    {"training", "evaluation", "reporting", "examples"},
    {"flows"},
    {"lipschitz"},
    {"data"},
    {"settings"},
    {"runs"},
    {"registry"},
    {"extras"},
    {"errors"},
)
HEIGHT = {name: len(LAYERS) - height for height, names in enumerate(LAYERS) for name in names}


def imports(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def edges() -> Iterator[tuple[str, str, str]]:
    """(file, its layer, layer it imports from) for every import within the package."""
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE)
        source = place.parts[0].removesuffix(".py")
        for module in imports(path):
            names = module.split(".")
            if names[0] == "acf" and len(names) > 1 and source != "__init__":
                yield place.as_posix(), source, names[1]


def test_every_folder_has_a_layer() -> None:
    found = {path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert found - {"__init__", "__pycache__"} == set(HEIGHT)


def test_imports_run_downwards() -> None:
    checked = list(edges())
    assert len(checked) > 200
    upwards = [
        f"{place} imports acf.{target}"
        for place, source, target in checked
        if source != target and HEIGHT[target] >= HEIGHT[source]
    ]
    assert not upwards


def test_every_module_has_a_name_of_its_own() -> None:
    names = [path.name for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    assert sorted(names) == sorted(set(names))
