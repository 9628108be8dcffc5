"""Checkpoints that are complete or absent."""

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from acf.runs.files import write_atomically

NAME = "checkpoint.pt"


def write_checkpoint(folder: Path, content: dict[str, Any]) -> None:
    """Replace the checkpoint in `folder` by `content` (tensors and plain values), atomically.

    Raises:
        OSError: the disk is full or read-only; the previous checkpoint is kept.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(folder / NAME, buffer.getvalue())


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return the checkpoint in `folder`, on the CPU, or None if there is none that can be read."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        print(f"{path} is damaged ({str(error).splitlines()[0]}); training starts again", flush=True)
        return None


def random_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the states of torch's generators that training draws from."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_random_state(state: dict[str, torch.Tensor], device: torch.device) -> None:
    """Set torch's generators to states from `random_state`."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    if device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])
