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
HASHES = "sha256"
"""Key of config.json: the hash of the weights' file, and that of the rest of config.json."""


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
    content = {**(record or {}), "model": flow.config.model_dump(mode="json")}
    content = json.loads(json.dumps(content))  # as it is read: keys are strings then
    content[HASHES] = {"weights": hashlib.sha256(weights).hexdigest(), "record": _record_hash(content)}
    return {WEIGHTS: weights, CONFIG: (json.dumps(content, indent=2) + "\n").encode()}


def load(path: Path | str, device: torch.device | str = "cpu") -> Flow:
    """Load the flow that a `train` stage wrote into the folder `path`, in evaluation mode.

    Raises:
        DataError: a file is missing, damaged or does not fit the configuration.
        ConfigError: config.json holds an unknown key or an impossible value.
    """
    folder = Path(path)
    record = read_record(folder)
    if HASHES in record and weights_hash(folder) != record[HASHES]["weights"]:
        raise DataError(f"{folder / WEIGHTS} is corrupt or of another model: {CONFIG} has another hash; train it again")
    try:
        with torch.device("cpu"):  # on torch's default device, such as "meta", weights could not be loaded
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
        DataError: there is none, or it cannot be read.
    """
    path = Path(folder) / WEIGHTS
    try:
        return file_hash(path)
    except FileNotFoundError:
        raise _no_weights(Path(folder)) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); train the model again") from None


def recorded_weights_hash(folder: Path | str) -> str:
    """Return the sha256 of a model's weights file as its config.json has it, which takes no time.

    Raises:
        DataError: config.json is missing or damaged; or it is of an earlier version, and there are no weights to hash.
    """
    record = read_record(folder)
    return record[HASHES]["weights"] if HASHES in record else weights_hash(folder)


def _no_weights(folder: Path) -> DataError:
    return DataError(f"{folder / WEIGHTS} is missing; train the model again (acf train)")


def read_record(folder: Path | str) -> dict[str, Any]:
    """Return the content of a model's config.json.

    Raises:
        DataError: missing, not JSON with a section `model`, or not what was written.
    """
    path = Path(folder) / CONFIG
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing: no trained model there; run acf train first") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); train the model again") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}); train the model again") from None
    if not isinstance(record, dict) or not isinstance(record.get("model"), dict):
        raise DataError(f"{path} has no section 'model'; train the model again")
    # Models of earlier versions have no hashes; a damaged name of their key does not make a model one of those.
    if HASHES in record or any(isinstance(value, dict) and "record" in value for value in record.values()):
        hashes = record.get(HASHES)
        whole = isinstance(hashes, dict) and hashes.keys() == {"weights", "record"}
        if not whole or record[HASHES]["record"] != _record_hash(record):
            raise DataError(f"{path} is not what training wrote; restore it, or train the model again")
    return record


def _record_hash(record: Mapping[str, Any]) -> str:
    content = {key: value for key, value in record.items() if key != HASHES}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
