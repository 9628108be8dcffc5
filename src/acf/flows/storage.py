"""A trained model on disk: `model.safetensors` and `config.json`."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from acf.errors import ConfigError, DataError
from acf.flows.build import build
from acf.flows.flow import Flow
from acf.runs.files import write_atomically
from acf.runs.recipe import file_hash

WEIGHTS, CONFIG = "model.safetensors", "config.json"
HASH = "weights_sha256"
"""Key of config.json: the hash of the weights file that it was saved with."""


def save(flow: Flow, folder: Path | str, record: Mapping[str, Any] | None = None) -> None:
    """Write weights, buffers and configuration into `folder`; each file appears complete or not at all.

    Args:
        flow: on any device.
        folder: made if missing.
        record: further JSON-able values for config.json, such as how the model was trained.
    """
    for name, content in serialise(flow, record).items():
        write_atomically(Path(folder) / name, content)


def serialise(flow: Flow, record: Mapping[str, Any] | None = None) -> dict[str, bytes]:
    """Return the content of the files that `save` writes, by name."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in flow.state_dict().items()}
    weights = safetensors.torch.save(tensors)
    identity = {"model": flow.config.model_dump(mode="json"), HASH: hashlib.sha256(weights).hexdigest()}
    return {WEIGHTS: weights, CONFIG: (json.dumps({**(record or {}), **identity}, indent=2) + "\n").encode()}


def load(path: Path | str, device: torch.device | str = "cpu") -> Flow:
    """Load the flow that a `train` stage wrote into the folder `path`, in evaluation mode.

    Raises:
        DataError: a file is missing or damaged, or the weights are not those that the configuration was saved with.
        ConfigError: config.json holds an unknown key or an impossible value.
    """
    folder = Path(path)
    record = read_record(folder)
    try:
        flow = build(record["model"])
    except ConfigError as error:
        raise ConfigError(f"{folder / CONFIG}: {error}") from None
    if record.get(HASH) not in (None, weights_hash(folder)):  # older models have none
        raise DataError(
            f"{folder / WEIGHTS} is damaged or of another model: its SHA-256 is not the one in {CONFIG}; train it again"
        )
    try:
        state = load_file(folder / WEIGHTS)
        dtype = next((t.dtype for t in state.values() if t.is_floating_point()), torch.float32)
        flow.to(dtype).load_state_dict(state)
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
        return file_hash(Path(folder) / WEIGHTS)
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
