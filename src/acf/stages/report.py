"""The stage `report`: tables, figures and the page of one experiment, and the table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from acf.errors import AcfError, ConfigError
from acf.registry import BASELINES
from acf.reporting.comparison import comparison
from acf.reporting.figures import bounds, curves, ranking
from acf.reporting.image_table import read_image_table
from acf.reporting.page import report_page
from acf.reporting.result_files import read_result
from acf.reporting.results import Results, read_history
from acf.reporting.schemas import Baselines, Metrics, TrainedModel
from acf.reporting.verdict import notes, verdict
from acf.reporting.wording import FULL, TERMINAL, cells, headings, markdown, printable
from acf.runs.folders import replace_folder
from acf.runs.recipe import code_hashes, file_hash, recipe
from acf.settings.params import Params, Run
from acf.stages.analysis_sections import analysis_sections, read_picture
from acf.stages.code_notes import note_code
from acf.stages.project import HISTORY, RECONSTRUCTIONS, SAMPLES, Project

PLAIN_WIDTH = 120
SHOWN_MISSING = 8


def report(experiment: str, root: Path = Path(".")) -> None:
    """Write reports/<experiment>/{index.html,table.csv,table.md,figures/*.png} and print the table.

    Everything is made before anything is written: a report that fails leaves the earlier one as it was.

    Raises:
        ConfigError: no such experiment, or result files are missing; the message names their commands.
        AcfError: a result file does not have the form of docs/architecture.md, or a file cannot be written.
    """
    project = Project(root)
    hashes = code_hashes("report")
    note_code("report", hashes, root)
    results = read_results(project, experiment)
    made_of = report_recipe(project, experiment, hashes)
    table = comparison(results)
    figures = _figures(project, table, results)
    sections = analysis_sections(project, experiment, results.bases)
    figures |= {figure.name: figure.png for section in sections for figure in section.figures}
    bullets = "".join(f"- {note}\n" for note in notes(table, results))
    files = {
        "table.csv": table.to_csv(index=False).encode(),
        "table.md": f"{markdown(table, FULL)}\n{bullets}".encode(),
        **{f"figures/{name}.png": content for name, content in figures.items()},
        "index.html": report_page(table, results, figures, made_of, sections).encode(),
    }
    folder = project.report(experiment)
    replace_folder(folder, files, project.lock(f"report-{experiment}"))
    _print(table, results, folder / "index.html")


def report_recipe(project: Project, experiment: str, hashes: Mapping[str, str]) -> str:
    """Return the recipe of a report, whose page carries it.

    Args:
        project: where the files are that it is made from.
        experiment: key under `experiments` in params.yaml.
        hashes: those of the code (`acf.runs.recipe.code_hashes`).

    Raises:
        OSError: a file is missing.
    """
    params = project.params
    settings = {
        "experiment": experiment,
        "dataset": params.dataset(experiment),
        "runs": [list(run) for run in params.runs(experiment)],
        "bases": _bases(params, experiment),
    }
    inputs = {path.relative_to(project.root).as_posix(): file_hash(path) for path in _needed(project, experiment)}
    return recipe("report", settings, inputs, hashes=hashes)


def read_results(project: Project, experiment: str) -> Results:
    """Read the result files of all runs that params.yaml names for `experiment`.

    Raises:
        ConfigError: no such experiment, or files are missing; the message names them and their commands.
        AcfError: a file does not have the form of docs/architecture.md, is of another run than its place says, or
            holds what was measured of another training than the model's.
    """
    params = project.params
    variants = {v: [run for run in params.runs(experiment) if run.variant == v] for v in params.variants(experiment)}
    if taken := [variant for variant in variants if variant in BASELINES]:
        raise ConfigError(f"{params.path}: variant {taken[0]!r} has the name of a baseline; give it another")
    _check_present(project, experiment)
    baselines = _baselines(project, experiment)
    metrics = {v: [_metrics(project, run) for run in runs] for v, runs in variants.items()}
    return Results(
        experiment=experiment,
        dataset=params.dataset(experiment),
        baselines=baselines,
        metrics=metrics,
        images={(m.variant, m.seed): _images(project, m) for seeds in metrics.values() for m in seeds},
        baseline_images=_baseline_images(project, baselines),
        histories={v: [_history(project, run) for run in runs] for v, runs in variants.items()},
        pictured={v: runs[0] for v, runs in variants.items()},
        bases=_bases(params, experiment),
    )


def _baselines(project: Project, experiment: str) -> Baselines:
    path, command = project.baselines(experiment), f"acf baselines --experiment {experiment}"
    identity = {"experiment": experiment, "dataset": project.params.dataset(experiment)}
    found = read_result(path, Baselines, identity, command)
    named = found.baselines | found.not_available
    if absent := [name for name in BASELINES if name not in named]:
        raise AcfError(f"{path} lacks {', '.join(absent)}; run: {command}")
    if unknown := [name for name in named if name not in BASELINES]:
        raise AcfError(f"{path} has unknown baselines: {', '.join(unknown)}; run: {command}")
    return found


def _metrics(project: Project, run: Run) -> Metrics:
    identity = run.identity(project.params.dataset(run.experiment))
    path, command = project.metrics(run), f"acf evaluate {run.options}"
    metrics = read_result(path, Metrics, identity, command)
    model = read_result(project.training_record(run), TrainedModel, identity, f"acf train {run.options}")
    if metrics.train_recipe != model.recipe:
        raise AcfError(f"{path} is of another training than the model's; run: {command}")
    return metrics


def _images(project: Project, metrics: Metrics) -> NDArray[np.float64]:
    run = Run(metrics.experiment, metrics.variant, metrics.seed)
    path, record, command = project.images(run), project.metrics(run), f"acf evaluate {run.options}"
    columns = read_image_table(path, record, metrics.means, metrics.test_images, metrics.images_sha256, command)
    return columns["bits_per_dim"]


def _baseline_images(project: Project, baselines: Baselines) -> dict[str, NDArray[np.float64]]:
    experiment, count, sha256 = baselines.experiment, baselines.test_images, baselines.images_sha256
    path, record = project.baseline_images(experiment), project.baselines(experiment)
    return read_image_table(path, record, baselines.means, count, sha256, f"acf baselines --experiment {experiment}")


def _history(project: Project, run: Run) -> pd.DataFrame:
    return read_history(project.model(run) / HISTORY, f"acf train {run.options}")


def _bases(params: Params, experiment: str) -> dict[str, str | None]:
    """Per variant with attention, the one without on the same branch; None where there is none."""
    models = {variant: params.resolve(experiment, variant).model for variant in params.variants(experiment)}
    plain = {model.branch: variant for variant, model in models.items() if model.attention.kind == "none"}
    return {
        variant: None if model.attention.kind == "none" else plain.get(model.branch)
        for variant, model in models.items()
    }


def _needed(project: Project, experiment: str) -> dict[Path, str]:
    """Return the files that a report is made from, each with the command that makes it."""
    files = (project.baselines(experiment), project.baseline_images(experiment))
    needed = dict.fromkeys(files, f"acf baselines --experiment {experiment}")
    for run in project.params.runs(experiment):
        for file in (project.model(run) / HISTORY, project.training_record(run)):
            needed[file] = f"acf train {run.options}"
        for file in (project.metrics(run), project.images(run)):
            needed[file] = f"acf evaluate {run.options}"
        for name in (SAMPLES, RECONSTRUCTIONS):
            needed[project.samples(run) / name] = f"acf sample {run.options}"
    sections = dict(project.params.analyses(experiment))
    for analysis, run in project.params.analysed(experiment):
        for name in sections[analysis].output_names(analysis):
            needed[project.analyses(run) / name] = f"acf {analysis} {run.options}"
    return needed


def _check_present(project: Project, experiment: str) -> None:
    missing = [
        f"  {file.relative_to(project.root).as_posix()}  (made by: {command})"
        for file, command in _needed(project, experiment).items()
        if not file.is_file()
    ]
    if missing:
        more = [f"  and {len(missing) - SHOWN_MISSING} more"] if len(missing) > SHOWN_MISSING else []
        lines = [f"the report on {experiment} needs files that are missing:", *missing[:SHOWN_MISSING], *more]
        raise ConfigError("\n".join([*lines, f"all at once: dvc repro report@{experiment}"]))


def _figures(project: Project, table: pd.DataFrame, results: Results) -> dict[str, bytes]:
    """Return the contents of the PNG files by name."""
    pictures = {
        f"{name.removesuffix('.png')}-{variant}": _picture(project.samples(run) / name, run)
        for name in (SAMPLES, RECONSTRUCTIONS)
        for variant, run in results.pictured.items()
    }
    return {
        "ranking": ranking(table, results),
        "curves-steps": curves(results, "step", "training step"),
        "curves-seconds": curves(results, "seconds", "seconds of training"),
        "bounds": bounds(results),
        **pictures,
    }


def _picture(path: Path, run: Run) -> bytes:
    return read_picture(path, f"run: acf sample {run.options}")


def _print(table: pd.DataFrame, results: Results, page: Path) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, emoji=False, width=PLAIN_WIDTH)

    def shown(text: str) -> str:
        return printable(text, console.encoding)

    grid = Table(title=f"{results.experiment}: test bits/dim, lower is better", title_justify="left")
    for number, heading in enumerate(headings(TERMINAL)):
        grid.add_column(heading, justify="right" if number else "left", no_wrap=number < 2)
    best = table["bits_per_dim"].idxmin()
    for number, row in enumerate(cells(table, TERMINAL)):
        last_baseline = number + 1 == (table["kind"] == "baseline").sum()
        grid.add_row(*map(shown, row), style="bold" if number == best else None, end_section=bool(last_baseline))
    console.print(grid)
    for sentence in verdict(table, results):
        console.print(shown(sentence))
    console.print(shown(f"report: {page}"), soft_wrap=True)
