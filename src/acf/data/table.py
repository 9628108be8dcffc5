"""The table of `acf data list`."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from acf.data.listing import Entry


def show(entries: Sequence[Entry]) -> None:
    """Print one block of lines per data set; wide enough for any line where it is not a terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=400)
    table = Table(box=None, pad_edge=False)
    for column in ("data set", "state", "images", "shape", "levels", "download", "licence", "source", "citation"):
        table.add_column(column, overflow="fold")
    for entry in entries:
        images = " + ".join(map(str, entry.images)) if entry.images else "-"
        shape = "x".join(map(str, entry.shape))
        size = "unknown" if entry.bytes is None else f"{entry.bytes / 1e6:,.0f} MB" if entry.bytes else "none"
        cells = (entry.name, entry.state, images, shape, str(entry.levels), size)
        table.add_row(*cells, entry.licence, entry.source, entry.citation)
    console.print(table)
