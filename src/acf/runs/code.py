"""The source files that a stage depends on: those below its folders that it imports, directly or through others."""

from collections.abc import Iterator
from pathlib import Path

from acf.registry import ANALYSES
from acf.runs.source import Source

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


def code_files(stage: str, code: Path = PACKAGE, known: dict[str, Source] | None = None) -> dict[str, Source]:
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


def _reached(start: str, code: Path, known: dict[str, Source]) -> dict[str, Source]:
    """Return all modules of the package that importing the file `start` can import, by their path below `code`."""
    found: dict[str, Source] = {}
    followed: set[tuple[str, ...]] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found[name] = source = known.setdefault(name, Source(code / name))
        package = ("acf", *Path(name).parts[:-1])
        modules = {_absolute(module, package) for module in (".", *source.imports)} - followed
        followed |= modules
        for module in modules:
            waiting.extend(_files_of(module, code))
    return found


def _absolute(module: str, package: tuple[str, ...]) -> tuple[str, ...]:
    """Return the parts of a module's name, which is relative to `package` if it begins with dots."""
    level = len(module) - len(module.lstrip("."))
    above = package[: len(package) - level + 1] if level else ()
    return (*above, *filter(None, module.split(".")))


def _files_of(module: tuple[str, ...], code: Path) -> Iterator[str]:
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
