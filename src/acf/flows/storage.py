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

from acf.errors import ConfigError, InputError
from acf.flows.build import build
from acf.flows.flow import Flow
from acf.flows.record import (
    CONFIG,
    HASHES,
    WEIGHTS,
    ModelFileError,
    Origin,
    no_weights,
    read_origin,
    read_record,
    record_hash,
    weights_hash,
)
from acf.runs.files import write_atomically


def save(flow: Flow, folder: Path | str, record: Mapping[str, Any] | None = None) -> None:
    """Write weights, buffers and configuration into `folder`; each file appears complete or not at all.

    Args:
        flow: on any device.
        folder: made if missing.
        record: further JSON-able values for config.json, such as how the model was trained. By default those that the
            flow was loaded with, unless its weights have changed since: then none, as they would be of other weights.

    Raises:
        InputError: the record has a key that config.json needs, or something that JSON cannot hold.
        UnwritableError: a file cannot be written.
    """
    for name, content in serialise(flow, record).items():
        write_atomically(Path(folder) / name, content)


def serialise(flow: Flow, record: Mapping[str, Any] | None = None) -> dict[str, bytes]:
    """Return the content of the files that `save` writes, by name; errors as for `save`."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in flow.state_dict().items()}
    weights = safetensors.torch.save(tensors)
    digest = hashlib.sha256(weights).hexdigest()
    if record is None and (origin := unchanged_origin(flow, digest)):
        record = origin.record
    content = {**_checked(record or {}), "model": flow.config.model_dump(mode="json")}
    content[HASHES] = {"weights": digest, "record": record_hash(content)}
    return {WEIGHTS: weights, CONFIG: (json.dumps(content, indent=2) + "\n").encode()}


def _checked(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record as it is read: keys are strings then."""
    if taken := [key for key in ("model", HASHES) if key in record]:
        raise InputError(f"record has the key {taken[0]!r}, which {CONFIG} has for itself; give it another name")
    try:
        return dict(json.loads(json.dumps(dict(record), allow_nan=False)))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"record cannot be stored as JSON: {error}") from None


def unchanged_origin(flow: Flow, weights: str) -> Origin | None:
    """Return what was stored with the weights of a flow if they are still those; `weights` is their hash."""
    return flow.origin if flow.origin and flow.origin.weights == weights else None


def load(path: Path | str, device: torch.device | str = "cpu") -> Flow:
    """Load the flow that a `train` stage wrote into the folder `path`, in evaluation mode.

    Raises:
        ModelFileError: a file is missing, damaged or does not fit the configuration. It is a DataError.
        ConfigError: config.json holds an unknown key or an impossible value.
    """
    folder = Path(path)
    record = read_record(folder)
    if HASHES in record and weights_hash(folder) != record[HASHES]["weights"]:
        raise ModelFileError(f"{folder / WEIGHTS} is corrupt or of another model: {CONFIG} has another hash")
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
        raise no_weights(folder) from None
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ModelFileError(f"{folder / WEIGHTS} is corrupt or of another model ({reason})") from None
    flow.origin = read_origin(folder, record)
    return flow.to(device).eval()
