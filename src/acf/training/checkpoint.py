"""Checkpoint files, which are complete or absent."""

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
    """Return the checkpoint in `folder`, its tensors on the CPU.

    The result is None if there is no checkpoint, and if it is damaged, which is printed.
    """
    path = folder / NAME
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        print(f"{path} is damaged ({str(error).splitlines()[0]}); training starts again", flush=True)
        return None
