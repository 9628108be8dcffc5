"""README's results tables, generated from `reports/<experiment>/table.csv` between two comments."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from acf.errors import AcfError
from acf.reporting.wording import README, markdown

SECTION = re.compile(r"(<!-- results:(?P<experiment>[\w-]+) -->\n)(?P<table>.*?)(<!-- /results -->)", re.DOTALL)


def tables(text: str) -> dict[str, str]:
    """Return the tables that `text` holds between markers, by experiment."""
    return {section["experiment"]: section["table"] for section in SECTION.finditer(text)}


def readme_table(csv: str) -> str:
    """Return README's markdown table from the text of a `table.csv`."""
    table = pd.read_csv(io.StringIO(csv))
    return f"\n{markdown(table, README)}\n"


def write_readme(root: Path = Path(".")) -> None:
    """Rewrite all tables of `README.md`.

    Raises:
        AcfError: README has no marker, or the report of an experiment it names is missing.
    """
    path, text = _readme(Path(root))
    read = _reports(Path(root))
    new = SECTION.sub(lambda section: section[1] + readme_table(read(section["experiment"])) + section[4], text)
    if new != text:
        path.write_text(new, encoding="utf-8")
    print(f"{path}: {'rewritten' if new != text else 'up to date'}")


def check_readme(root: Path = Path(".")) -> None:
    """Check that all tables of `README.md` are what `write_readme` would write.

    Raises:
        AcfError: a table is stale (the message names the experiment), or as for `write_readme`.
    """
    path, text = _readme(Path(root))
    read = _reports(Path(root))
    if stale := [name for name, table in tables(text).items() if table != readme_table(read(name))]:
        raise AcfError(f"{path}: the results of {', '.join(stale)} are not those of the reports; run: acf readme")


def _readme(root: Path) -> tuple[Path, str]:
    path = root / "README.md"
    text = path.read_text(encoding="utf-8")
    if not tables(text):
        raise AcfError(f"{path} has no results table: write <!-- results:digits --> and <!-- /results --> on two lines")
    return path, text


def _reports(root: Path) -> Callable[[str], str]:
    def read(experiment: str) -> str:
        path = root / "reports" / experiment / "table.csv"
        if not path.is_file():
            raise AcfError(
                f"{path} is missing; run: dvc repro report@{experiment} (or acf report --experiment {experiment})"
            )
        return path.read_text(encoding="utf-8")

    return read
