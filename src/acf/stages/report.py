"""The stage `report`: tables, figures and the page of one experiment, and the table on the terminal."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from acf.errors import AcfError, ConfigError
from acf.registry import BASELINES
from acf.reporting.comparison import comparison
from acf.reporting.figures import bounds, curves, enlarge, ranking
from acf.reporting.page import report_page
from acf.reporting.results import Baselines, Metrics, Results, read_history, read_result
from acf.reporting.verdict import notes, verdict
from acf.reporting.wording import FULL, TERMINAL, cells, headings, markdown
from acf.settings.params import Params
from acf.stages.project import Project

PLAIN_WIDTH = 120
HISTORY, SAMPLES, RECONSTRUCTIONS = "history.csv", "samples.png", "reconstructions.png"
SHOWN_MISSING = 8


def report(experiment: str, root: Path = Path(".")) -> None:
    """Write reports/<experiment>/{index.html,table.csv,table.md,figures/*.png} and print the table.

    Raises:
        ConfigError: no such experiment, or result files are missing; the message names their commands.
        AcfError: a result file does not have the form of docs/architecture.md.
    """
    project = Project(root)
    results = read_results(project, experiment)
    table = comparison(results)
    folder = project.report(experiment)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "figures").mkdir(parents=True)
    table.to_csv(folder / "table.csv", index=False)
    bullets = "".join(f"- {note}\n" for note in notes(table, results))
    (folder / "table.md").write_text(f"{markdown(table, FULL)}\n{bullets}", encoding="utf-8")
    figures = _draw(table, results, folder / "figures")
    (folder / "index.html").write_text(report_page(table, results, figures), encoding="utf-8")
    _print(table, results, folder / "index.html")


def read_results(project: Project, experiment: str) -> Results:
    """Read the result files of all runs that params.yaml names for `experiment`.

    Raises:
        ConfigError: no such experiment, or files are missing; the message names them and their commands.
        AcfError: a file does not have the form of docs/architecture.md.
    """
    params = project.params
    variants = {v: [run for run in params.runs(experiment) if run.variant == v] for v in params.variants(experiment)}
    _check_present(project, experiment)
    path = project.baselines(experiment)
    baselines = read_result(path, Baselines)
    if absent := [name for name in BASELINES if name not in baselines.baselines | baselines.not_available]:
        raise AcfError(f"{path} lacks {', '.join(absent)}; run: acf baselines --experiment {experiment}")
    return Results(
        experiment=experiment,
        dataset=params.dataset(experiment),
        baselines=baselines,
        metrics={v: [read_result(project.metrics(run), Metrics) for run in runs] for v, runs in variants.items()},
        histories={v: [read_history(project.model(run) / HISTORY) for run in runs] for v, runs in variants.items()},
        pictures={v: project.samples(runs[0]) for v, runs in variants.items()},
        bases=_bases(params, experiment),
    )


def _bases(params: Params, experiment: str) -> dict[str, str | None]:
    """Per variant with attention, the one without on the same branch; None where there is none."""
    models = {variant: params.resolve(experiment, variant).model for variant in params.variants(experiment)}
    plain = {model.branch: variant for variant, model in models.items() if model.attention.kind == "none"}
    return {
        variant: None if model.attention.kind == "none" else plain.get(model.branch)
        for variant, model in models.items()
    }


def _check_present(project: Project, experiment: str) -> None:
    needed = {project.baselines(experiment): f"acf baselines --experiment {experiment}"}
    for run in project.params.runs(experiment):
        needed[project.model(run) / HISTORY] = f"acf train {run.options}"
        needed[project.metrics(run)] = f"acf evaluate {run.options}"
        for name in (SAMPLES, RECONSTRUCTIONS):
            needed[project.samples(run) / name] = f"acf sample {run.options}"
    missing = [
        f"  {file.relative_to(project.root).as_posix()}  (made by: {command})"
        for file, command in needed.items()
        if not file.is_file()
    ]
    if missing:
        more = [f"  and {len(missing) - SHOWN_MISSING} more"] if len(missing) > SHOWN_MISSING else []
        lines = [f"the report on {experiment} needs files that are missing:", *missing[:SHOWN_MISSING], *more]
        raise ConfigError("\n".join([*lines, f"all at once: dvc repro report@{experiment}"]))


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
    shown = Table(title=f"{results.experiment}: test bits/dim, lower is better", title_justify="left")
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
