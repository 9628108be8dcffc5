"""The command `acf audit`: the trained models of an experiment, their audits as JSON and Markdown."""

from __future__ import annotations

import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress

from acf.data import load as load_images
from acf.data import read_manifest
from acf.errors import DataError, NotContractiveError
from acf.evaluation.block_audit import STEPS, audit, summary
from acf.flows.storage import CONFIG, load
from acf.reporting.audit_table import markdown
from acf.reporting.result_files import read_result, require_form
from acf.reporting.schemas import Audit, Metrics, TrainedModel
from acf.runs.device import describe_device
from acf.runs.files import write_atomically, writing
from acf.runs.leases import leased_device
from acf.runs.threads import paying_threads
from acf.settings.params import Run
from acf.settings.work import largest_map
from acf.stages.cached import json_bytes
from acf.stages.project import Project
from acf.stages.trained import read_trained

IMAGES = 64
SEED = 0


def audit_models(
    experiment: str,
    variant: str | None = None,
    seed: int | None = None,
    images: int = IMAGES,
    device: str = "auto",
    root: Path = Path("."),
) -> None:
    """Audit the trained models of `experiment` and write docs/tables/audit-<experiment>.{json,md}.

    Args:
        experiment: key under `experiments` in params.yaml.
        variant: only this one; by default all of the experiment that have a model.
        seed: only this one; by default all that have a model.
        images: first test images used, at least two.
        device: cpu, cuda, or auto; computed in float64, which MPS does not have: the CPU takes its place.
        root: the project's top folder.

    Raises:
        NotContractiveError: a gain above its proven bound was found, which is said after writing; or a block has no
            proof. The message names model and block.
        AcfError: bad configuration, missing data or model, a damaged file, or tables that cannot be written.
    """
    project = Project(root)
    runs = _trained(project, experiment, variant, seed)
    dataset = project.params.dataset(experiment)
    manifest = read_manifest(dataset, project.data)
    count = min(images, manifest.counts["test"])
    largest = max(largest_map(project.params.resolve(*run[:2]).model, manifest.shape) for run in runs)
    with leased_device(device) as leased, paying_threads(count * largest):
        place = torch.device("cpu") if leased.type == "mps" else leased
        models = [_audit_model(project, run, dataset, images, place) for run in runs]
        how = _how(count, place)
    table = {
        "command": _command(experiment, variant, seed, images),
        "experiment": experiment,
        "dataset": dataset,
        "how": how,
        "models": models,
    }
    path = project.root / "docs" / "tables" / f"audit-{experiment}.json"
    require_form(table, Audit, path)
    for file, content in {path: json_bytes(table), path.with_suffix(".md"): markdown(table).encode()}.items():
        with writing(file):
            write_atomically(file, content)
    print(f"wrote {path} and {path.with_suffix('.md').name}", flush=True)
    _require_none_refuted(models, path)


def _trained(project: Project, experiment: str, variant: str | None, seed: int | None) -> list[Run]:
    """Return the runs that have a model, in the order of params.yaml."""
    params = project.params
    if variant is not None:
        params.resolve(experiment, variant)  # says which variants there are, if this is none of them
    folder = project.root / "models" / experiment
    runs = []
    for name in [variant] if variant is not None else params.variants(experiment):
        numbers = [file.parent.name.removeprefix("seed") for file in folder.glob(f"{name}/seed*/{CONFIG}")]
        runs += [Run(experiment, name, int(number)) for number in sorted(filter(str.isdecimal, numbers), key=int)]
    runs = [run for run in runs if seed is None or run.seed == seed]
    if not runs:
        wanted = f"{variant or '*'}/seed{'*' if seed is None else seed}"
        raise DataError(f"no trained model at {folder / wanted}; run acf train --experiment {experiment} first")
    return runs


def _how(images: int, place: torch.device) -> dict[str, Any]:
    """Return how models are audited, with the number of threads in use now."""
    return {
        "images": images,
        "steps": STEPS,
        "seed": SEED,
        "dtype": "float64",
        "device": describe_device(place),
        "versions": {"acf": version("acf"), "torch": torch.__version__},
    }


def _audit_model(project: Project, run: Run, dataset: str, count: int, place: torch.device) -> dict[str, Any]:
    folder = project.model(run)
    record, flow = read_trained(project, run), load(folder, place)
    images = load_images(dataset, "test", project.data, flow.config.levels)[:count]
    title = f"audit {run.folder.as_posix()}"
    number = len(flow.residual_blocks())
    print(f"{title}: {number} blocks, {len(images)} images", flush=True)
    console = Console(file=sys.stdout)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(title, total=number)
        try:
            blocks = audit(flow, images, seed=SEED, on_block=lambda name: bar.advance(task))
        except NotContractiveError as error:
            raise NotContractiveError(f"{folder}: {error}") from None
    return {
        "variant": run.variant,
        "seed": run.seed,
        "parameters": sum(p.numel() for p in flow.parameters()),
        "recipe": record.recipe,
        "train_steps": record.train_steps,
        **_likelihood(project, run, record),
        "summary": summary(blocks),
        "blocks": [asdict(block) for block in blocks],
    }


def _likelihood(project: Project, run: Run, record: TrainedModel) -> dict[str, float | None]:
    """Return bits/dim and its standard error from metrics.json; None without one, or with that of another training."""
    keys = ("bits_per_dim", "bits_per_dim_se")
    path, command = project.metrics(run), f"acf evaluate {run.options}"
    if not path.exists():
        return dict.fromkeys(keys)
    metrics = read_result(path, Metrics, run._asdict() | {"dataset": record.dataset}, command)
    if metrics.train_recipe != record.recipe:
        print(f"{path} is of another training of this model; run {command} to have its bits/dim", flush=True)
        return dict.fromkeys(keys)
    return {key: getattr(metrics, key) for key in keys}


def _command(experiment: str, variant: str | None, seed: int | None, images: int) -> str:
    options = {"variant": variant, "seed": seed, "images": None if images == IMAGES else images}
    given = [f"--{name} {value}" for name, value in options.items() if value is not None]
    return " ".join([f"acf audit --experiment {experiment}", *given])


def _require_none_refuted(models: list[dict[str, Any]], path: Path) -> None:
    refuted = [
        f"{model['variant']}, seed {model['seed']}, block {block['name']} "
        f"(a gain of {block['found']:.4f} where {block['upper']:.4f} is proven)"
        for model in models
        for block in model["blocks"]
        if not block["ratio"] <= 1
    ]
    if refuted:
        raise NotContractiveError(
            f"a proven bound is refuted: {'; '.join(refuted)}; lipschitz_bound of a layer in that branch is wrong, "
            f"do not trust these flows' inverses; all numbers are in {path}"
        )
