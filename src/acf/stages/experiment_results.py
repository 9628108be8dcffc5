"""What a report is made from: the result files of an experiment, as far as they are there and whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from acf.data.prepared.manifest import Column, manifest_path, read_manifest
from acf.data.sources.registered import dataset_source
from acf.errors import AcfError, ConfigError
from acf.registry import BASELINES, BASELINES_OF_VECTORS
from acf.reporting.image_table import read_image_table
from acf.reporting.result_files import read_result
from acf.reporting.results import Absent, Results, read_history
from acf.reporting.schemas import Baselines, Metrics
from acf.settings.params import Params, Run
from acf.stages.bases import bases
from acf.stages.measured_files import absent_for, read_metrics, seen_form
from acf.stages.project import HISTORY, Project

SHOWN_MISSING = 8


def read_results(project: Project, experiment: str) -> Results:
    """Read the result files of the runs that params.yaml names for `experiment`.

    A run that is not trained, not evaluated or damaged is in `Results.absent`, with the reason.

    Raises:
        ConfigError: no such experiment, or its baselines are missing; the message names what is missing, with commands.
        AcfError: the baselines' files do not have the form of docs/architecture.md.
    """
    params = project.params
    variants = params.variants(experiment)
    if taken := [variant for variant in variants if variant in (*BASELINES, *BASELINES_OF_VECTORS)]:
        raise ConfigError(f"{params.path}: variant {taken[0]!r} has the name of a baseline; give it another")
    _check_baselines(project, experiment)
    baselines = _baselines(project, experiment)
    metrics: dict[str, list[Metrics]] = {variant: [] for variant in variants}
    histories: dict[str, list[pd.DataFrame]] = {variant: [] for variant in variants}
    images, labels, trained, absent = {}, {}, {}, []
    for run in params.runs(experiment):
        if missing := _missing(project, run):
            absent.append(missing)
            continue
        try:
            measured, model = read_metrics(project, run)
            of_images, history = _images(project, run, measured), _history(project, run)
        except AcfError as error:
            absent.append(absent_for(run, error))
            continue
        metrics[run.variant].append(measured)
        histories[run.variant].append(history)
        images[run.variant, run.seed] = of_images["bits_per_dim"]
        if measured.classification is not None:
            labels[run.variant, run.seed] = {name: of_images[name] for name in ("correct", "label_log_prob")}
        trained[run.variant, run.seed] = model
    return Results(
        experiment=experiment,
        dataset=params.dataset(experiment),
        baselines=baselines,
        metrics=metrics,
        images=images,
        labels=labels,
        baseline_images=_baseline_images(project, baselines),
        histories=histories,
        bases=bases(params, experiment),
        tasks=tasks(params, experiment),
        trained=trained,
        absent=absent,
        columns=_columns(project, experiment),
        made=params.seen(experiment).made,
        remark=dataset_source(params.prepared(experiment)).remark,
        incomparable_seconds=params.reporting(experiment).incomparable_seconds,
    )


def tasks(params: Params, experiment: str) -> dict[str, str]:
    """Per variant, what it is trained for."""
    return {variant: params.resolve(experiment, variant).training.task.kind for variant in params.variants(experiment)}


def needed_files(project: Project, experiment: str) -> dict[Path, str]:
    """Return the files that a whole report is made from, each with the command that makes it."""
    needed = dict.fromkeys(_baseline_files(project, experiment), f"acf baselines --experiment {experiment}")
    if not project.params.is_of_images(experiment):  # whose units the report gives
        dataset = project.params.dataset(experiment)
        needed[manifest_path(dataset, project.data)] = f"acf prepare --dataset {dataset}"
    for run in project.params.runs(experiment):
        for file in _model_files(project, run):
            needed[file] = f"acf train {run.options}"
        for file in (project.metrics(run), project.images(run)):
            needed[file] = f"acf evaluate {run.options}"
        for name in project.sample_files(experiment):
            needed[project.samples(run) / name] = f"acf sample {run.options}"
    sections = dict(project.params.analyses(experiment))
    for analysis, run in project.params.analysed(experiment):
        for name in sections[analysis].output_names(analysis):
            needed[project.analyses(run) / name] = f"acf {analysis} {run.options}"
    return needed


def _columns(project: Project, experiment: str) -> Sequence[Column] | None:
    """Return the columns of the table that an experiment is on; None if it is on images."""
    if project.params.is_of_images(experiment):
        return None
    return read_manifest(project.params.dataset(experiment), project.data).columns


def _check_baselines(project: Project, experiment: str) -> None:
    """Check that there is something to report: at least the baselines.

    Raises:
        ConfigError: they are missing; names all files that are.
    """
    if all(file.is_file() for file in _baseline_files(project, experiment)):
        return
    missing = [
        f"  {file.relative_to(project.root).as_posix()}  (made by: {command})"
        for file, command in needed_files(project, experiment).items()
        if not file.is_file()
    ]
    more = [f"  and {len(missing) - SHOWN_MISSING} more"] if len(missing) > SHOWN_MISSING else []
    lines = [f"the report on {experiment} needs files that are missing:", *missing[:SHOWN_MISSING], *more]
    raise ConfigError("\n".join([*lines, f"all at once: dvc repro report@{experiment}"]))


def _missing(project: Project, run: Run) -> Absent | None:
    """Return what of a run is not there at all; None if all files are."""
    if not all(file.is_file() for file in _model_files(project, run)):
        return Absent(run, f"not trained; run: acf train {run.options}")
    if not all(file.is_file() for file in (project.metrics(run), project.images(run))):
        return Absent(run, f"not evaluated; run: acf evaluate {run.options}")
    return None


def _model_files(project: Project, run: Run) -> tuple[Path, Path]:
    return project.model(run) / HISTORY, project.training_record(run)


def _baseline_files(project: Project, experiment: str) -> tuple[Path, Path]:
    return project.baselines(experiment), project.baseline_images(experiment)


def _baselines(project: Project, experiment: str) -> Baselines:
    path, command = project.baselines(experiment), f"acf baselines --experiment {experiment}"
    identity = {"experiment": experiment, "dataset": project.params.dataset(experiment)}
    found = read_result(path, Baselines, identity, command)
    named = found.baselines | found.not_available
    known = BASELINES if project.params.is_of_images(experiment) else BASELINES_OF_VECTORS
    if absent := [name for name in known if name not in named]:
        raise AcfError(f"{path} lacks {', '.join(absent)}; run: {command}")
    if unknown := [name for name in named if name not in known]:
        raise AcfError(f"{path} has unknown baselines: {', '.join(unknown)}; run: {command}")
    form, histogram = seen_form(project, experiment), found.baselines.get("histogram")
    # It has one number less than grey levels for every value, so that its size tells what it was fitted to.
    if form and histogram and histogram.parameters != math.prod(form.shape) * (form.levels - 1):
        raise AcfError(f"{path} is of other images than {project.params.path} gives {experiment}; run: {command}")
    return found


def _images(project: Project, run: Run, metrics: Metrics) -> dict[str, NDArray[np.float64]]:
    path, record, command = project.images(run), project.metrics(run), f"acf evaluate {run.options}"
    return read_image_table(path, record, metrics.means, metrics.test_images, metrics.images_sha256, command)


def _baseline_images(project: Project, baselines: Baselines) -> dict[str, NDArray[np.float64]]:
    experiment, count, sha256 = baselines.experiment, baselines.test_images, baselines.images_sha256
    path, record = project.baseline_images(experiment), project.baselines(experiment)
    return read_image_table(path, record, baselines.means, count, sha256, f"acf baselines --experiment {experiment}")


def _history(project: Project, run: Run) -> pd.DataFrame:
    return read_history(project.model(run) / HISTORY, f"acf train {run.options}")
