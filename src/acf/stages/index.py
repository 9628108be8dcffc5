"""The stage `index`: one page that links to the report of every experiment."""

from __future__ import annotations

from pathlib import Path

from acf.reporting.comparison import read_comparison
from acf.reporting.page import render
from acf.reporting.wording import BITS, GAIN, NAME, PARAMETERS, cells
from acf.runs.files import write_atomically, writing
from acf.stages.project import Project


def index(root: Path = Path(".")) -> None:
    """Write reports/index.html over the experiments in params.yaml, with or without a report yet.

    Raises:
        ConfigError: params.yaml is missing or wrong.
        AcfError: the table of a report is damaged, or the page cannot be written.
    """
    project = Project(root)
    path = project.root / "reports" / "index.html"
    entries = [(name, _best(project.report(name) / "table.csv", name)) for name in project.params.experiments]
    with writing(path):
        write_atomically(path, render("index.html.j2", entries=entries).encode())
    print(f"wrote {path}")


def _best(path: Path, experiment: str) -> list[str] | None:
    if not path.exists():
        return None
    table = read_comparison(path, experiment)
    flows = table[table["kind"] == "flow"]
    best = flows[flows["bits_per_dim"] == flows["bits_per_dim"].min()].head(1)
    return [*cells(best, [NAME, BITS, GAIN, PARAMETERS])[0], str(len(flows))]
