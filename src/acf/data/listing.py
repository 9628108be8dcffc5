"""The state of every data set, as `acf data list` shows it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from acf.data.download.downloads import DOWNLOADS
from acf.data.prepared.labels import labels_path
from acf.data.prepared.manifest import ROOT, SPLITS, Manifest, manifest_path, read_manifest
from acf.data.prepared.tensors import tensor_path
from acf.data.sources.dataset import Dataset
from acf.data.sources.registered import dataset_source
from acf.errors import ConfigError, DataError, MissingPackageError
from acf.registry import datasets

State = Literal["ready", "partial", "missing", "manual", "broken"]


@dataclass(frozen=True)
class Entry:
    """One data set.

    Attributes:
        name: its key in the registry.
        state: ready (prepared; content not recomputed), partial (something is there, `acf prepare` goes on),
            missing, manual (missing, and a person has to fetch it), or broken (its class cannot be used).
        images: numbers of training and test images or rows, if ready.
        shape: (C, H, W), or of a table that is ready (D,).
        levels: number of values of a pixel; None for a table.
        bytes: of the download; None where it is not known.
        licence: of the images.
        source: where they come from.
        citation: what to cite.
        problem: of one that is broken, what is wrong; it has no shape, levels, licence, source and citation.
    """

    name: str
    state: State
    images: tuple[int, int] | None = None
    shape: tuple[int, ...] | None = None
    levels: int | None = None
    bytes: int | None = None
    licence: str | None = None
    source: str | None = None
    citation: str | None = None
    problem: str | None = None

    def as_dict(self) -> dict[str, object]:
        """Return the fields as values that JSON can hold."""
        return asdict(self)


def overview(root: Path = ROOT) -> list[Entry]:
    """Return the state of every registered data set, from manifests and file names only."""
    return [_entry(name, Path(root)) for name in sorted(datasets())]


def _entry(name: str, root: Path) -> Entry:
    try:
        source = dataset_source(name)
    except (ConfigError, MissingPackageError) as error:
        return Entry(name, "broken", problem=str(error))
    state, manifest = _state(source, root)
    images = (manifest.counts["train"], manifest.counts["test"]) if manifest else None
    shape = manifest.shape if manifest else source.shape
    facts = (shape, source.levels, source.bytes, source.licence, source.source, source.citation)
    return Entry(name, state, images, *facts)


def _state(source: Dataset, root: Path) -> tuple[State, Manifest | None]:
    files = [*(tensor_path(source.name, split, root) for split in SPLITS), labels_path(source.name, root)]
    try:
        manifest = read_manifest(source.name, root)
    except DataError:
        manifest = None
    if manifest and all(path.is_file() for path in files):
        return "ready", manifest
    downloads = root / DOWNLOADS / source.name
    fetched = [path for path in downloads.glob("*") if path.name != "lock"] if downloads.is_dir() else []
    if fetched or manifest_path(source.name, root).exists() or any(path.exists() for path in files):
        return "partial", None
    return ("manual" if source.manual else "missing"), None


def show(entries: Sequence[Entry]) -> None:
    """Print one block of lines per data set; wide enough for any line where it is not a terminal."""
    console = Console(markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(markup=False, emoji=False, width=400)
    table = Table(box=None, pad_edge=False)
    for column in ("data set", "state", "images", "shape", "levels", "download", "licence", "source", "citation"):
        table.add_column(column, overflow="fold")
    for entry in entries:
        images = " + ".join(map(str, entry.images)) if entry.images else "-"
        shape = "x".join(map(str, entry.shape)) if entry.shape else "-"
        size = "unknown" if entry.bytes is None else f"{entry.bytes / 1e6:,.0f} MB" if entry.bytes else "none"
        cells = (entry.name, entry.state, images, shape, str(entry.levels or "-"), size)
        table.add_row(*cells, *(text or "-" for text in (entry.licence, entry.source, entry.citation)))
    console.print(table)
    for entry in entries:
        if entry.problem:
            console.print(entry.problem, soft_wrap=True)
