"""The stage `acf report`: tables, figures and the page of one data set, and the table on the terminal."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from acf.reporting.comparison import comparison
from acf.reporting.figures import bounds, curves, enlarge, ranking
from acf.reporting.page import report_page
from acf.reporting.results import Results, read_results
from acf.reporting.verdict import notes, verdict
from acf.reporting.wording import FULL, TERMINAL, cells, headings, markdown

PLAIN_WIDTH = 120


def report(dataset: str, root: Path = Path(".")) -> None:
    """Write `reports/<dataset>/{index.html,table.csv,table.md,figures/*.png}` and print the table.

    Raises:
        ConfigError: no such experiment, or result files are missing; the message names their commands.
        AcfError: a result file does not have the form of docs/architecture.md.
    """
    root = Path(root)
    results = read_results(dataset, root)
    table = comparison(results)
    folder = root / "reports" / dataset
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "figures").mkdir(parents=True)
    table.to_csv(folder / "table.csv", index=False)
    bullets = "".join(f"- {note}\n" for note in notes(table, results))
    (folder / "table.md").write_text(f"{markdown(table, FULL)}\n{bullets}", encoding="utf-8")
    figures = _draw(table, results, folder / "figures")
    (folder / "index.html").write_text(report_page(table, results, figures), encoding="utf-8")
    _print(table, results, folder / "index.html")


def _draw(table: pd.DataFrame, results: Results, folder: Path) -> dict[str, Path]:
    names = ["ranking", "curves-steps", "curves-seconds", "bounds"]
    names += [f"{kind}-{variant}" for kind in ("samples", "reconstructions") for variant in results.pictures]
    paths = {name: folder / f"{name}.png" for name in names}
    ranking(table, results, paths["ranking"])
    curves(results, "step", "training step", paths["curves-steps"])
    curves(results, "seconds", "seconds of training", paths["curves-seconds"])
    bounds(results, paths["bounds"])
    for variant, source in results.pictures.items():
        for kind in ("samples", "reconstructions"):
            enlarge(source / f"{kind}.png", paths[f"{kind}-{variant}"])
    return paths


def _print(table: pd.DataFrame, results: Results, page: Path) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PLAIN_WIDTH)
    shown = Table(title=f"{results.dataset}: test bits/dim, lower is better", title_justify="left")
    for number, heading in enumerate(headings(TERMINAL)):
        shown.add_column(heading, justify="right" if number else "left", no_wrap=number < 2)
    best = table["bits_per_dim"].idxmin()
    for number, row in enumerate(cells(table, TERMINAL)):
        last_baseline = number + 1 == (table["kind"] == "baseline").sum()
        shown.add_row(*row, style="bold" if number == best else None, end_section=bool(last_baseline))
    console.print(shown)
    for sentence in verdict(table, results):
        console.print(sentence)
    console.print(f"report: {page}", soft_wrap=True)
