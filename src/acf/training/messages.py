"""The lines that training prints, and the advice at the end of its error messages."""

from pathlib import Path
from typing import Any

import torch

from acf.errors import AcfError, StoppedError, UnwritableError
from acf.flows.flow import Flow
from acf.settings.config import TrainingConfig
from acf.training.checkpoint import read_checkpoint


def introduction(
    title: str, flow: Flow, config: TrainingConfig, device: torch.device, processes: int, step: int
) -> str:
    """Return the first line of a run: size of the model, devices, steps done before, and the training estimate."""
    parameters = sum(p.numel() for p in flow.parameters())
    log_det = config.log_det
    gradient = "Neumann series" if log_det.neumann_gradient else "derivative of the estimate itself"
    terms = f"{log_det.exact_terms} exact terms, {log_det.distribution} roulette"
    exact = log_det.estimator == "exact"
    how = "exact" if exact else f"an unbiased estimate ({terms}), gradient: {gradient}"
    start = f"resumed after step {step}" if step else "from the start"
    place = f"{device}" if processes == 1 else f"{processes} x {device.type}"
    return f"{title}: {parameters:,} parameters on {place}, {start}; training bits/dim is {how}"


def validation_line(title: str, row: dict[str, Any], steps: int, speed: str) -> str:
    """Return the line of one validation, from its row of the history; `steps` is the number of steps in all."""
    return (
        f"{title}: step {row['step']}/{steps}  train {row['train_bits_per_dim']:.3f}  "
        f"validation {row['validation_bits_per_dim']:.3f} ± {row['validation_se']:.3f} bits/dim  {speed}"
    )


def advice(error: AcfError, folder: Path) -> str:
    """Return what a person can do after `error`, for the end of its message; `folder` is the checkpoint's."""
    if isinstance(error, StoppedError | UnwritableError):
        return "Run the same command again to go on"
    kept = read_checkpoint(folder)
    where = f"The last good checkpoint (step {kept['step']}) is kept in {folder}" if kept else ""
    change = "lower training.learning_rate (and training.muon.learning_rate) or raise training.warmup_steps"
    return f"{where or 'There is no checkpoint yet'}; {change}"
