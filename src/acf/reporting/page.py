"""The HTML page of one experiment: self-contained, without requests, and whole without its script."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from acf.reporting.analysis_files import AnalysisFile
from acf.reporting.embedding import data_uri, embed
from acf.reporting.origins import facts, run_tables
from acf.reporting.page_parts import Figure, Section
from acf.reporting.results import Results
from acf.reporting.verdict import notes, verdict
from acf.reporting.wording import Column, cells, count, full, headings

DETAILS = {"each seed", "steps", "log p(z)", "log-determinant", "dequantisation", "evaluations/s", "device"}
"""Headings of the columns that stand in a second table, so that the first one is no wider than a screen."""
LINKED = re.compile(r"arXiv (\d{4}\.\d{4,5})|`([^`]+)`")
# Followed by nothing or a space, so that a recipe such as 12e4567... is none.
NUMBER = re.compile(r"([−-]?[\d,]*\.?\d+)(?:e([−-]?\d{1,2}))?(?![^\s])(?: (s|min|h)\b)?")
SECONDS = {"s": 1, "min": 60, "h": 3600}


def render(template: str, **values: Any) -> str:
    """Return the text of a template in `reporting/templates`; values are escaped for HTML."""
    environment = Environment(
        loader=PackageLoader("acf.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"linked": linked, "sort_key": sort_key}
    return environment.get_template(template).render(**values).lstrip()


def linked(text: str) -> Markup:
    """Return the text for HTML, with links to what is on arXiv, and with `code` as code."""
    escaped = str(escape(text))
    link = '<a href="https://arxiv.org/abs/{0}">arXiv {0}</a>'
    return Markup(LINKED.sub(lambda m: link.format(m[1]) if m[1] else f"<code>{m[2]}</code>", escaped))


def sort_key(text: str) -> str:
    """Return the number that a cell begins with, times in seconds, by which a column is sorted; "" for other cells."""
    found = NUMBER.match(text)
    if not found:
        return ""
    digits, exponent, unit = found.groups()
    power = (exponent or "0").replace("−", "-")
    value = float(digits.replace(",", "").replace("−", "-")) * 10.0 ** int(power) * SECONDS.get(unit, 1)
    return repr(value)


@dataclass(frozen=True)
class Content:
    """What a page is made of.

    Attributes:
        table: the comparison table.
        results: what was measured.
        ranking: the figure of the table.
        sections: the parts between the table and the origin of the numbers.
        analysed: files of the analyses that the sections are made from.
        seeds: those that params.yaml names.
        commands: that make the report.
        commit: of the code and the settings.
        recipe: what the page says of itself.
        tables: content of the files beside the page with the table, by ending.
    """

    table: pd.DataFrame
    results: Results
    ranking: Figure
    sections: Sequence[Section]
    analysed: Sequence[AnalysisFile]
    seeds: Sequence[int]
    commands: str
    commit: str
    recipe: str
    tables: Mapping[str, bytes]


def report_page(content: Content) -> str:
    """Return the page, of at most `PAGE_LIMIT` bytes as far as its figures make it large."""
    table, results = content.table, content.results
    first, *others = verdict(table, results)
    embedded = embed([content.ranking, *(figure for section in content.sections for figure in section.figures)])
    main, details = _columns(table)
    flows = table[table["kind"] == "flow"]
    return render(
        "report.html.j2",
        recipe=content.recipe,
        experiment=results.experiment,
        unit=results.unit,
        compared=_compared(results, content.seeds),
        headline=first,
        verdict=others,
        main=(headings(main), cells(table, main)),
        details=(headings(details), cells(flows, details)),
        baselines=list(results.baselines.baselines),
        best=table["row"][table["bits_per_dim"].argmin()],
        absent=_absent(results, content.seeds),
        downloads=[(ending, data_uri(_TYPES[ending], content.tables[ending])) for ending in content.tables],
        notes=notes(table, results),
        ranking=content.ranking,
        sections=content.sections,
        sources=embedded.sources,
        commit=content.commit,
        facts=facts(results, content.seeds),
        run_tables=run_tables(results, content.analysed),
        commands=content.commands,
        figure_note=embedded.note,
    )


_TYPES = {"csv": "text/csv", "md": "text/markdown", "tex": "application/x-tex"}


def _columns(table: pd.DataFrame) -> tuple[list[Column], list[Column]]:
    """Return the columns of the table that is seen first, and those of the second one, each with the models' names."""

    first, *others = full(table)

    def chosen(wanted: Callable[[str], bool]) -> list[Column]:
        return [first, *(column for column in others if wanted(column[0]))]

    return chosen(lambda heading: heading not in DETAILS), chosen(lambda heading: heading in DETAILS)


def _absent(results: Results, seeds: Sequence[int]) -> list[tuple[str, str]]:
    """Return the name of each run that is not in the table, and why."""
    several = len(seeds) > 1
    return [(one.name if several else one.run.variant, one.why) for one in results.absent]


def _compared(results: Results, seeds: Sequence[int]) -> str:
    trainings = "one training each" if len(seeds) == 1 else f"{len(seeds)} trainings each"
    on_data = f" {results.on_data}" if results.on_data else ""
    return (
        f"Data set {results.dataset}.{on_data} "
        f"{', '.join(results.metrics)} ({trainings}) against densities fitted without a "
        f"network ({', '.join(results.baselines.baselines)}); {count(results.baselines.test_images)} test "
        f"{results.unit}. Bits/dim are the bits that a perfect code built on a density needs for a value: lower is "
        "better. The base of a variant is the flow to which it adds attention or something else, and its gain the "
        "bits/dim of the base minus its own."
    )
