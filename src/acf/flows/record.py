"""What the files of a trained model say of themselves: `config.json`, and the hash of `model.safetensors`."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acf.errors import DataError
from acf.runs.recipe import file_hash

WEIGHTS, CONFIG = "model.safetensors", "config.json"
HASHES = "sha256"
"""Key of config.json: the hash of the weights' file, and that of the rest of config.json."""


def weights_hash(folder: Path | str) -> str:
    """Return the sha256 of a model's weights file.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    path = Path(folder) / WEIGHTS
    try:
        return file_hash(path)
    except FileNotFoundError:
        raise no_weights(Path(folder)) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); train the model again") from None


def recorded_weights_hash(folder: Path | str) -> str:
    """Return the sha256 of a model's weights file as its config.json has it, which takes no time.

    Raises:
        DataError: config.json is missing or damaged; or it is of an earlier version, and there are no weights to hash.
    """
    record = read_record(folder)
    return record[HASHES]["weights"] if HASHES in record else weights_hash(folder)


def no_weights(folder: Path) -> DataError:
    """Return the error of a model whose weights are missing."""
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
        if not whole or record[HASHES]["record"] != record_hash(record):
            raise DataError(f"{path} is not what training wrote; restore it, or train the model again")
    return record


def record_hash(record: Mapping[str, Any]) -> str:
    """Return the sha256 of a config.json without its hashes."""
    content = {key: value for key, value in record.items() if key != HASHES}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
