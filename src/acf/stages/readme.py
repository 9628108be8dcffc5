"""README's results tables, generated from `reports/<experiment>/table.csv` between two comments."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from acf.errors import AcfError
from acf.reporting.comparison import read_comparison
from acf.reporting.wording import README, markdown
from acf.runs.files import write_atomically
from acf.stages.project import Project

SECTION = re.compile(r"(<!-- results:(?P<experiment>[\w-]+) -->\n)(?P<table>.*?)(<!-- /results -->)", re.DOTALL)
MARKER = re.compile(r"<!-- (?:results:.*?|/results) -->")


def tables(text: str) -> dict[str, str]:
    """Return the tables that `text` holds between markers, by experiment."""
    return {section["experiment"]: section["table"] for section in SECTION.finditer(text)}


def readme_table(table: pd.DataFrame) -> str:
    """Return README's markdown table from the comparison table of a report."""
    return f"\n{markdown(table, README)}\n"


def write_readme(root: Path = Path(".")) -> None:
    """Rewrite all tables of `README.md`.

    Raises:
        AcfError: README has no markers or some without a partner, the report of an experiment it names is missing or
            its table damaged, or README cannot be written, in which case it is as it was.
    """
    path, text = _readme(Path(root))
    written = {name: readme_table(_table(Path(root), name)) for name in tables(text)}
    new = SECTION.sub(lambda section: section[1] + written[section["experiment"]] + section[4], text)
    if new != text:
        write_atomically(path.resolve(), new.encode())
    print(f"{path}: {'rewritten' if new != text else 'up to date'}")


def check_readme(root: Path = Path(".")) -> None:
    """Check that all tables of `README.md` are what `write_readme` would write.

    Raises:
        AcfError: a table is stale (the message names the experiment), or as for `write_readme`.
    """
    path, text = _readme(Path(root))
    stale = [
        section["experiment"]
        for section in SECTION.finditer(text)
        if section["table"] != readme_table(_table(Path(root), section["experiment"]))
    ]
    if stale:
        raise AcfError(f"{path}: the results of {', '.join(stale)} are not those of the reports; run: acf readme")
    print(f"{path}: up to date")


def _table(root: Path, experiment: str) -> pd.DataFrame:
    return read_comparison(Project(root).report(experiment) / "table.csv", experiment)


def _readme(root: Path) -> tuple[Path, str]:
    path = root / "README.md"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise AcfError(
            f"{path} cannot be read: {error.strerror or error}; run acf readme in the top folder of the project"
        ) from None
    except UnicodeDecodeError as error:
        raise AcfError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}; save it as UTF-8") from None
    sections = list(SECTION.finditer(text))
    if not sections:
        raise AcfError(f"{path} has no results table: write <!-- results:digits --> and <!-- /results --> on two lines")
    # Two markers to a section: one without a partner would have the text up to the next one replaced by a table.
    for section in sections:
        if MARKER.search(section["table"]):
            raise AcfError(f"{path}: the results of {section['experiment']} do not end: write <!-- /results --> there")
    if len(MARKER.findall(text)) != 2 * len(sections):
        raise AcfError(f"{path} has a marker of results without a partner: each <!-- results:... --> needs its own end")
    return path, text
