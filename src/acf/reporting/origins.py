"""How the numbers of a report were made: commands, recipes, devices and versions behind each of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from acf.reporting.analysis_files import AnalysisFile
from acf.reporting.page_parts import Table
from acf.reporting.results import Results
from acf.reporting.schemas import Metrics
from acf.reporting.wording import ABSENT, NOT_AVAILABLE, count, duration, rate, scientific
from acf.settings.params import Run

DRAWN = {
    "images": "Draws of the dequantisation noise and of the estimator",
    "rows": "Draws of the estimator",
}


def facts(results: Results, seeds: Sequence[int]) -> list[tuple[str, str]]:
    """Return what holds for all numbers, or for the most of them, each under its name.

    Args:
        results: of the experiment.
        seeds: those that params.yaml names.
    """
    runs, baselines = results.runs, results.baselines
    measured = [
        (f"Test {results.unit}", _same(count(metrics.test_images) for metrics in runs)),
        (DRAWN[results.unit], _same(str(metrics.draws) for metrics in runs)),
        ("Estimator of the log-determinant in evaluation", _same(_settings(metrics.estimator) for metrics in runs)),
        (
            f"{results.unit.capitalize()} of the reconstruction error",
            _same(count(metrics.reconstruction_images) for metrics in runs),
        ),
    ]
    measured_baselines = f"{count(baselines.test_images)} test {results.unit}, {baselines.draws} draws"
    return [
        ("Training seeds", ", ".join(map(str, seeds))),
        *(measured if runs else []),
        ("Baselines", f"{measured_baselines}, recipe {baselines.recipe or NOT_AVAILABLE}"),
    ]


def run_tables(results: Results, analysed: Sequence[AnalysisFile]) -> list[Table]:
    """Return the tables of what computed each number: of devices and versions, of trainings, and of analyses."""
    made = [place for metrics in results.runs for place in (_training(metrics, results), _evaluation(metrics))]
    places = list(dict.fromkeys([*made, *(_place(f.device, f.versions) for f in analysed)]))
    letters = {place: _letter(number) for number, place in enumerate(places)}
    tables = []
    if places:
        rows = [[letter, device, versions] for (device, versions), letter in letters.items()]
        tables.append(Table(["machine", "device", "versions"], rows, "Machines, as the next tables name them.", left=3))
    if results.runs:
        heads = ["model", "seed", "training time", "steps", "trained on", "recipe of training"]
        heads += ["evaluation time", f"{results.unit}/s", "evaluated on", "± of draws", "recipe of evaluation"]
        rows = [_run(metrics, results, letters) for metrics in results.runs]
        tables.append(Table(heads, rows, "Trainings and evaluations, one row for each trained model."))
    if analysed:
        rows = [
            [f.analysis, f.variant, str(f.seed), duration(f.seconds), letters[_place(f.device, f.versions)], f.recipe]
            for f in analysed
        ]
        heads = ["analysis", "model", "seed", "time", "computed on", "recipe"]
        tables.append(Table(heads, rows, "Analyses, one row for each trained model.", left=2))
    return tables


def commands(experiment: str, dataset: str, runs: Iterable[Run], analysed: Sequence[tuple[str, Run]]) -> str:
    """Return the commands that make a report, by an engine and one after the other."""
    stages = {run: ["train", "evaluate", "sample"] for run in runs}
    for analysis, run in analysed:
        stages[run].append(analysis)
    lines = [f"acf prepare --dataset {dataset}", f"acf baselines --experiment {experiment}"]
    lines += [f"acf {stage} {run.options}" for run, names in stages.items() for stage in names]
    lines += [f"acf report --experiment {experiment}"]
    engines = [f"dvc repro report@{experiment}", f"snakemake --cores all -- reports/{experiment}/index.html"]
    return "\n".join([f"{engines[0]}   # or: {engines[1]}", "", "# which runs", *lines])


Place = tuple[str, str]
"""A device, and the versions of what computed on it."""


def _training(metrics: Metrics, results: Results) -> Place:
    return _place(metrics.train_device, results.trained[metrics.variant, metrics.seed].versions)


def _evaluation(metrics: Metrics) -> Place:
    return _place(metrics.device, metrics.versions)


def _place(device: str | None, versions: dict[str, str] | None) -> Place:
    named = ", ".join(f"{name} {version}" for name, version in (versions or {}).items())
    return device or NOT_AVAILABLE, named or NOT_AVAILABLE


def _letter(number: int) -> str:
    """Return A to Z, AA, AB ... for 0, 1 ..."""
    return (_letter(number // 26 - 1) if number >= 26 else "") + chr(ord("A") + number % 26)


def _run(metrics: Metrics, results: Results, letters: dict[Place, str]) -> list[str]:
    draws = metrics.bits_per_dim_se_draws
    return [
        metrics.variant,
        str(metrics.seed),
        duration(metrics.train_seconds),
        count(metrics.train_steps),
        letters[_training(metrics, results)],
        metrics.train_recipe or NOT_AVAILABLE,
        duration(metrics.evaluate_seconds),
        rate(metrics.images_per_second),
        letters[_evaluation(metrics)],
        ABSENT if draws is None else scientific(draws),
        metrics.recipe,
    ]


def _same(values: Iterable[str]) -> str:
    """Return the one value, or all that occur in order of first use."""
    return "; ".join(dict.fromkeys(values))


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(
        f"{key.replace('_', ' ')} {value if isinstance(value, str) else json.dumps(value)}"
        for key, value in settings.items()
    )
