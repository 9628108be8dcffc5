"""A trained model on disk: `model.safetensors` and `config.json`."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from acf.errors import ConfigError, DataError
from acf.flows.build import build
from acf.flows.flow import Flow

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save(flow: Flow, folder: Path | str, record: Mapping[str, Any] | None = None) -> None:
    """Write weights, buffers and configuration into `folder`; each file appears complete or not at all.

    Args:
        flow: on any device.
        folder: made if missing.
        record: further JSON-able values for config.json, such as how the model was trained.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in flow.state_dict().items()}
    content = {**(record or {}), "model": flow.config.model_dump(mode="json")}
    for name in (WEIGHTS, CONFIG):
        partial = folder / f".{name}.partial"
        if name == WEIGHTS:
            save_file(tensors, partial)
        else:
            partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(folder / name)


def load(path: Path | str, device: torch.device | str = "cpu") -> Flow:
    """Load the flow that a `train` stage wrote into the folder `path`, in evaluation mode.

    Raises:
        DataError: a file is missing, truncated or does not fit the configuration.
        ConfigError: config.json holds an unknown key or an impossible value.
    """
    folder = Path(path)
    record = read_record(folder)
    try:
        flow = build(record["model"])
    except ConfigError as error:
        raise ConfigError(f"{folder / CONFIG}: {error}") from None
    try:
        state = load_file(folder / WEIGHTS)
        dtype = next((t.dtype for t in state.values() if t.is_floating_point()), torch.float32)
        flow.to(dtype).load_state_dict(state)
    except FileNotFoundError:
        raise _no_weights(folder) from None
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{folder / WEIGHTS} is corrupt or of another model ({reason}); train it again") from None
    return flow.to(device).eval()


def weights_hash(folder: Path | str) -> str:
    """Return the sha256 of a model's weights file.

    Raises:
        DataError: there is none.
    """
    try:
        with (Path(folder) / WEIGHTS).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise _no_weights(Path(folder)) from None


def _no_weights(folder: Path) -> DataError:
    return DataError(f"{folder / WEIGHTS} is missing; train the model again (acf train)")


def read_record(folder: Path | str) -> dict[str, Any]:
    """Return the content of a model's config.json.

    Raises:
        DataError: missing or not JSON with a section `model`.
    """
    path = Path(folder) / CONFIG
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing: no trained model there; run acf train first") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not JSON ({error}); train the model again") from None
    if not isinstance(record, dict) or "model" not in record:
        raise DataError(f"{path} has no section 'model'; train the model again")
    return record
