"""The stage `index`: one page that links to the report of every experiment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from acf.reporting.comparison import read_comparison
from acf.reporting.page import render
from acf.reporting.wording import ABSENT, BITS, GAIN, NAME, PARAMETERS, cells, headings
from acf.runs.files import write_atomically, writing
from acf.runs.recipe import code_hashes, file_hash, recipe
from acf.stages.code_notes import note_code
from acf.stages.project import Project

TABLE = "table.csv"
COLUMNS = [NAME, BITS, GAIN, PARAMETERS]
"""Of the table of a report, for its best flow."""
HEADINGS = ["experiment", "data set", "best flow", *headings(COLUMNS)[1:], "flows compared"]


def index(root: Path = Path(".")) -> None:
    """Write reports/index.html over the experiments in params.yaml, with or without a report yet.

    Raises:
        ConfigError: params.yaml is missing or wrong.
        AcfError: the table of a report is damaged, or the page cannot be written.
    """
    project = Project(root)
    hashes = code_hashes("index")
    note_code("index", hashes, root)
    path = project.index
    made_of = index_recipe(project, hashes)
    params = project.params
    entries = [(e, params.dataset(e), _best(project.report(e) / TABLE, e)) for e in params.experiments]
    page = render("index.html.j2", recipe=made_of, headings=HEADINGS, entries=entries)
    with writing(path):
        write_atomically(path, page.encode())
    print(f"wrote {path}")


def index_recipe(project: Project, hashes: Mapping[str, str]) -> str:
    """Return the recipe of the page, which carries it; `hashes` are those of the code."""
    tables = {name: project.report(name) / TABLE for name in project.params.experiments}
    settings = {"experiments": {name: project.params.dataset(name) for name in tables}}
    inputs = {name: file_hash(table) for name, table in tables.items() if table.is_file()}
    return recipe("index", settings, inputs, hashes=hashes)


def _best(path: Path, experiment: str) -> list[str] | None:
    if not path.exists():
        return None
    table = read_comparison(path, experiment)
    flows = table[table["kind"] == "flow"]
    if flows.empty:
        return ["none yet", *[ABSENT] * (len(COLUMNS) - 1), "0"]
    best = flows[flows["bits_per_dim"] == flows["bits_per_dim"].min()].head(1)
    return [*cells(best, COLUMNS)[0], str(len(flows))]
