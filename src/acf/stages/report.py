"""The stage `report`: tables, figures and the page of one experiment, and the table on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from acf.data.sources.registered import dataset_source
from acf.reporting.comparison import comparison
from acf.reporting.figures import ranking
from acf.reporting.findings_file import FINDINGS, findings_file
from acf.reporting.for_dvc import curves_table, summary
from acf.reporting.latex import tabular
from acf.reporting.matched_depth import matched_depth
from acf.reporting.matched_seconds import matched_seconds
from acf.reporting.origins import commands
from acf.reporting.page import Content, report_page
from acf.reporting.page_parts import Section
from acf.reporting.parts import certificates, training
from acf.reporting.published_figures import published_section
from acf.reporting.results import Absent, Results
from acf.reporting.sections.convergence_section import convergence_section
from acf.reporting.sections.labels_section import labels_section
from acf.reporting.sections.rows_section import density_section
from acf.reporting.style import Looks, looks
from acf.reporting.verdict import notes, verdict
from acf.reporting.wording import ABSENT, cells, full, headings, markdown_table, printable, terminal
from acf.runs.commit import code_commit
from acf.runs.files import write_atomically
from acf.runs.folders import replace_folder
from acf.runs.recipe import code_hashes, file_hash, recipe
from acf.stages.analysis_sections import analysis_sections
from acf.stages.bases import bases, plain, plain_of_other_size
from acf.stages.code_notes import note_code
from acf.stages.experiment_results import needed_files, read_results, tasks
from acf.stages.project import Project
from acf.stages.sample_sections import sampled_sections

PLAIN_WIDTH = 120


def report(experiment: str, root: Path = Path(".")) -> None:
    """Write reports/<experiment>/{index.html,table.csv,table.md,table.tex,findings.json,figures/} and print the table.

    What DVC shows goes to summaries/<experiment>.json and curves/<experiment>.csv.

    Everything is made before anything is written: a report that fails leaves the earlier one as it was. What is not
    trained, not evaluated or damaged is named in the report and on the terminal.

    Raises:
        ConfigError: no such experiment, or not even its baselines are there; the message names the commands.
        AcfError: the baselines' files do not have the form of docs/architecture.md, or a file cannot be written.
    """
    project = Project(root)
    hashes = code_hashes("report")
    note_code("report", hashes, root)
    results = read_results(project, experiment)
    made_of = report_recipe(project, experiment, hashes)
    table = comparison(results)
    appearance = looks(list(project.params.raw["variants"]))
    analyses = analysis_sections(project, experiment, results.bases, appearance)
    sampled, unseen = sampled_sections(project, experiment)
    shown = _sections(project, table, results, appearance, [*sampled, *analyses.sections])
    best = ranking(table, results, appearance)
    tables = _tables(table, results)
    content = Content(
        table=table,
        results=results,
        ranking=best,
        sections=shown,
        analysed=analyses.files,
        seeds=project.params.seeds(experiment),
        commands=commands(
            experiment,
            project.params.prepared(experiment),
            project.params.runs(experiment),
            project.params.analysed(experiment),
        ),
        commit=code_commit(project.root),
        recipe=made_of,
        tables=tables,
    )
    files = {f"table.{ending}": text for ending, text in tables.items()}
    for figure in [best, *(figure for section in shown for figure in section.figures)]:
        files |= {f"figures/{figure.name}.png": figure.png}
        files |= {f"figures/{figure.name}.svg": figure.svg} if figure.svg is not None else {}
    files["index.html"] = report_page(content).encode()
    pairs = matched_depth(results, plain_of_other_size(project.params, experiment))
    pairs += matched_seconds(results, plain(project.params, experiment))
    pairs += [pair for section in shown for pair in section.pairs]
    measures = [measure for section in shown for measure in section.measures]
    sentences = {section.name: section.sentences for section in shown}
    files[FINDINGS] = findings_file(experiment, pairs, sentences, measures)
    folder = project.report(experiment)
    for_dvc = {project.summary(experiment): summary(results), project.curves(experiment): curves_table(results)}
    replace_folder(folder, files, project.lock(f"report-{experiment}"))
    for path, text in for_dvc.items():
        write_atomically(path, text)
    _print(table, results, [*results.absent, *unseen, *analyses.absent], folder / "index.html")


def report_recipe(project: Project, experiment: str, hashes: Mapping[str, str]) -> str:
    """Return the recipe of a report, whose page carries it; files that are missing count as missing.

    Args:
        project: where the files are that it is made from.
        experiment: key under `experiments` in params.yaml.
        hashes: those of the code (`acf.runs.recipe.code_hashes`).

    Raises:
        OSError: a file cannot be read.
    """
    params = project.params
    settings = {
        "experiment": experiment,
        "dataset": params.dataset(experiment),
        "seen": params.seen(experiment).model_dump(mode="json"),
        "remark": dataset_source(params.prepared(experiment)).remark,
        "runs": [list(run) for run in params.runs(experiment)],
        "bases": bases(params, experiment),
        "plain": plain(params, experiment),
        "plain_of_other_size": plain_of_other_size(params, experiment),
        "tasks": tasks(params, experiment),
        "variants": list(params.raw["variants"]),
        "reporting": params.reporting(experiment).model_dump(mode="json", exclude={"counted"}),
    }
    inputs = {
        path.relative_to(project.root).as_posix(): file_hash(path) if path.is_file() else "missing"
        for path in needed_files(project, experiment)
    }
    return recipe("report", settings, inputs, hashes=hashes)


def _sections(
    project: Project, table: pd.DataFrame, results: Results, appearance: Looks, measured: Sequence[Section]
) -> list[Section]:
    """Return the sections of the page, those on samples and analyses, `measured`, among them."""
    count = dataset_source(project.params.prepared(results.experiment)).counts["train"]
    convergence = convergence_section(results, project.params.reporting(results.experiment).validation_targets)
    return [
        *([] if results.columns is None else [density_section(table, results.columns)]),
        training(results, appearance),
        *filter(None, [labels_section(results, appearance)]),
        *filter(None, [convergence]),
        certificates(results, appearance),
        *measured,
        published_section(table, results, count if isinstance(count, int) else None),
    ]


def _tables(table: pd.DataFrame, results: Results) -> dict[str, bytes]:
    """Return the comparison table as files, by ending; the CSV file has measured rows only."""
    said = notes(table, results)
    columns = full(table)
    heads, rows = headings(columns), cells(table, columns)
    for one in results.absent:
        rows.append([one.name, one.why.partition(";")[0].partition(":")[0], *[ABSENT] * (len(heads) - 2)])
    bullets = "".join(f"- {note}\n" for note in said)
    rules = [len(results.baselines.baselines) - 1]
    return {
        "csv": table.to_csv(index=False).encode(),
        "md": f"{markdown_table(heads, rows)}\n{bullets}".encode(),
        "tex": tabular(heads, rows, said, rules).encode(),
    }


def _print(table: pd.DataFrame, results: Results, absent: Sequence[Absent], page: Path) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, emoji=False, width=PLAIN_WIDTH)

    def shown(text: str) -> str:
        return printable(text, console.encoding)

    columns = terminal(table)
    grid = Table(title=f"{results.experiment}: test bits/dim, lower is better", title_justify="left")
    for number, heading in enumerate(headings(columns)):
        grid.add_column(heading, justify="right" if number else "left", no_wrap=number < 2)
    best = table["bits_per_dim"].idxmin()
    for number, row in enumerate(cells(table, columns)):
        last_baseline = number + 1 == (table["kind"] == "baseline").sum()
        grid.add_row(*map(shown, row), style="bold" if number == best else None, end_section=bool(last_baseline))
    console.print(grid)
    for sentence in verdict(table, results):
        console.print(shown(sentence))
    _print_absent(absent, lambda text: console.print(shown(text), soft_wrap=True))
    console.print(shown(f"report: {page}"), soft_wrap=True)


def _print_absent(absent: Sequence[Absent], line: Callable[[str], None]) -> None:
    """Say what the report does without, once for each run that is not trained."""
    said = dict.fromkeys(one.text for one in absent)
    if said:
        line("The report does without:")
    for text in said:
        line(f"  {text}")
