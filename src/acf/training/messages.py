"""The lines that training prints, and the advice at the end of its error messages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from acf.errors import AcfError, StoppedError, UnwritableError
from acf.flows.flow import Flow
from acf.settings.config import TrainingConfig
from acf.training.checkpoint import read_checkpoint
from acf.training.history import error_column
from acf.training.tasks.task import MEASURES, task_of


def introduction(
    title: str, flow: Flow, config: TrainingConfig, device: torch.device, processes: int, step: int
) -> str:
    """Return the first line of a run: size of the model, devices, steps done before, and the training estimate."""
    parameters = sum(p.numel() for p in flow.parameters())
    log_det = config.log_det
    task = "" if config.task.kind == "density" else f", trained for {config.task.kind},"
    gradient = "Neumann series" if log_det.neumann_gradient else "derivative of the estimate itself"
    terms = f"{log_det.exact_terms} exact terms, {log_det.distribution} roulette"
    exact = log_det.estimator == "exact"
    how = "exact" if exact else f"an unbiased estimate ({terms}), gradient: {gradient}"
    start = f"resumed after step {step}" if step else "from the start"
    place = f"{device}" if processes == 1 else f"{processes} x {device.type}"
    beginning = f"{title}: {parameters:,} parameters{task} on {place}, {start}"
    return f"{beginning}; training bits/dim is {how}" if "bits_per_dim" in task_of(config).measures else beginning


def validation_line(title: str, row: dict[str, Any], steps: int, speed: str) -> str:
    """Return the line of one validation, from its row of the history; `steps` is the number of steps in all."""
    return (
        f"{title}: step {row['step']}/{steps}  {'  '.join(_validated(row, name) for name in _measured(row))}  {speed}"
    )


def state_of_bar(row: Mapping[str, Any], speed: str) -> str:
    """Return what was measured in training, from a row of the history, and the speed."""
    means = (f"{row[f'train_{name}']:.3f} {MEASURES[name]}" for name in _measured(row))
    return f"{'  '.join(means)}  {speed}"


def _measured(row: Mapping[str, Any]) -> list[str]:
    return [name for name in MEASURES if row[f"train_{name}"] != ""]


def _validated(row: Mapping[str, Any], name: str) -> str:
    mean, error = row[f"validation_{name}"], row[error_column(name)]
    return f"train {row[f'train_{name}']:.3f}  validation {mean:.3f} ± {error:.3f} {MEASURES[name]}"


def advice(error: AcfError, folder: Path) -> str:
    """Return what a person can do after `error`, for the end of its message; `folder` is the checkpoint's."""
    if isinstance(error, StoppedError | UnwritableError):
        return "Run the same command again to go on"
    kept = read_checkpoint(folder)
    where = f"The last good checkpoint (step {kept['step']}) is kept in {folder}" if kept else ""
    change = "lower training.learning_rate (and training.muon.learning_rate) or raise training.warmup_steps"
    return f"{where or 'There is no checkpoint yet'}; {change}"
