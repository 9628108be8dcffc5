"""The stage `acf index`: one page that links to the report of every data set."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from acf.reporting.page import render
from acf.reporting.wording import BITS, GAIN, NAME, PARAMETERS, cells
from acf.settings.params import PARAMS_FILE, Params


def index(root: Path = Path(".")) -> None:
    """Write `reports/index.html` over the data sets in `params.yaml`, with or without a report yet."""
    root = Path(root)
    folder = root / "reports"
    entries = [(name, _best(folder / name / "table.csv")) for name in Params(root / PARAMS_FILE).datasets]
    folder.mkdir(exist_ok=True)
    (folder / "index.html").write_text(render("index.html.j2", entries=entries), encoding="utf-8")
    print(f"index: {folder / 'index.html'}")


def _best(path: Path) -> list[str] | None:
    if not path.is_file():
        return None
    table = pd.read_csv(path)
    flows = table[table["kind"] == "flow"]
    best = flows[flows["bits_per_dim"] == flows["bits_per_dim"].min()].head(1)
    return [*cells(best, [NAME, BITS, GAIN, PARAMETERS])[0], str(len(flows))]
