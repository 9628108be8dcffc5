"""The HTML page of one experiment: self-contained, no scripts, no requests."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from acf.reporting.figures import SPAN
from acf.reporting.published_figures import MARKS, published
from acf.reporting.results import Results
from acf.reporting.schemas import Metrics
from acf.reporting.section import Section
from acf.reporting.verdict import notes, verdict
from acf.reporting.wording import ABSENT, FULL, bound, cells, count, duration, headings, rate, scientific
from acf.settings.params import Run


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
    return environment.get_template(template).render(**values).lstrip()


def report_page(
    table: pd.DataFrame, results: Results, figures: Mapping[str, bytes], recipe: str, sections: Sequence[Section] = ()
) -> str:
    """Return the page; `figures` are the contents of PNG files by name, `recipe` is what the page says of itself."""
    seeds = [metrics.seed for metrics in next(iter(results.metrics.values()))]
    entries = published(results.dataset)
    return render(
        "report.html.j2",
        recipe=recipe,
        experiment=results.experiment,
        compared=_compared(results, seeds),
        verdict=verdict(table, results),
        headings=headings(FULL),
        rows=cells(table, FULL),
        best=table["row"][table["bits_per_dim"].argmin()],
        notes=notes(table, results),
        figures={name: _data_uri(content) for name, content in figures.items()},
        sections=sections,
        span=SPAN,
        reference=results.reference,
        variants=list(results.metrics),
        first_seed=seeds[0],
        certificates=[_certificate(variant, runs) for variant, runs in results.metrics.items()],
        published=entries,
        published_rows=[[value or ABSENT for value in entry] for entry in entries],
        links=[(entry.model, entry.source.removeprefix("arXiv ")) for entry in entries],
        marks=MARKS,
        facts=_facts(results, seeds),
        run_rows=[_run(metrics) for metrics in results.runs],
        commands=_commands(results),
    )


def _data_uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _compared(results: Results, seeds: list[int]) -> str:
    trainings = "one training each" if len(seeds) == 1 else f"{len(seeds)} trainings each"
    return (
        f"Data set {results.dataset}. {', '.join(results.metrics)} ({trainings}) against densities fitted without a "
        f"network ({', '.join(results.baselines.baselines)}); {count(results.baselines.test_images)} test images."
    )


def _certificate(variant: str, runs: list[Metrics]) -> list[str]:
    worst = max((metrics.certificate for metrics in runs), key=lambda certificate: certificate.worst)
    smallest = min(block.upper for metrics in runs for block in metrics.certificate.blocks)
    return [variant, bound(worst.worst), worst.worst_block, count(len(worst.blocks)), bound(smallest)]


def _run(metrics: Metrics) -> list[str]:
    draws = metrics.bits_per_dim_se_draws
    return [
        metrics.variant,
        str(metrics.seed),
        duration(metrics.train_seconds),
        count(metrics.train_steps),
        duration(metrics.evaluate_seconds),
        rate(metrics.images_per_second),
        ABSENT if draws is None else scientific(draws),
        metrics.train_recipe or ABSENT,
        metrics.recipe,
    ]


def _facts(results: Results, seeds: list[int]) -> list[tuple[str, str]]:
    runs = results.runs
    return [
        ("Device of training", _same(metrics.train_device or "not available" for metrics in runs)),
        ("Device of evaluation", _same(metrics.device for metrics in runs)),
        ("Versions", _same(", ".join(f"{k} {v}" for k, v in metrics.versions.items()) for metrics in runs)),
        ("Training seeds", ", ".join(map(str, seeds))),
        ("Test images", _same(count(metrics.test_images) for metrics in runs)),
        (
            "Draws of the dequantisation noise and of the estimator",
            _same(str(metrics.draws) for metrics in runs),
        ),
        (
            "Estimator of the log-determinant in evaluation",
            _same(_settings(metrics.estimator) for metrics in runs),
        ),
        (
            "Images of the reconstruction error",
            _same(count(metrics.reconstruction_images) for metrics in runs),
        ),
        ("Baselines", f"{count(results.baselines.test_images)} test images, {results.baselines.draws} draws"),
    ]


def _same(values: Any) -> str:
    """Return the one value, or all that occur in order of first use."""
    return "; ".join(dict.fromkeys(values))


def _settings(settings: dict[str, Any]) -> str:
    return ", ".join(
        f"{key.replace('_', ' ')} {value if isinstance(value, str) else json.dumps(value)}"
        for key, value in settings.items()
    )


def _commands(results: Results) -> str:
    experiment = f"--experiment {results.experiment}"
    runs = [Run(results.experiment, metrics.variant, metrics.seed).options for metrics in results.runs]
    lines = [f"acf prepare --dataset {results.dataset}", f"acf baselines {experiment}"]
    lines += [f"acf {stage} {run}" for run in runs for stage in ("train", "evaluate", "sample")]
    lines += [f"acf report {experiment}"]
    return "\n".join([f"dvc repro report@{results.experiment}", "", "# which runs", *lines])
