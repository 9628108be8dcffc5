"""What the files of a trained model say of themselves: `config.json`, and the hash of `model.safetensors`."""

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acf.errors import DataError
from acf.runs.recipe import file_hash

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
LIBRARY = "acf"
"""Name under which a model card says what loads the model."""
HASHES = "sha256"
"""Key of config.json: the hash of the weights' file, and that of the rest of config.json."""

OF_THIS_LIBRARY = re.compile(rf"---\n(?:(?!---\n).*\n)*?library_name: {LIBRARY}\n")
"""The beginning of a model card that is of a model of this library, up to the line that says so."""


@dataclass(frozen=True)
class Origin:
    """What was stored with the weights that a flow was loaded with, and goes with them when they are stored again.

    Attributes:
        record: content of config.json without its section `model` and its hashes: how the model was trained, and what
            else was recorded.
        card: text of the model card, None if there is none.
        weights: sha256 of the file of the weights.
    """

    record: Mapping[str, Any]
    card: str | None
    weights: str


class ModelFileError(DataError):
    """A file of a stored model is missing or damaged.

    Attributes:
        fact: what is wrong, without what to do.
    """

    def __init__(self, fact: str) -> None:
        super().__init__(f"{fact}; restore the file, or make the model again (acf train, or acf.save in a program)")
        self.fact = fact


def weights_hash(folder: Path | str) -> str:
    """Return the sha256 of a model's weights file.

    Raises:
        ModelFileError: there is none, or it cannot be read.
    """
    path = Path(folder) / WEIGHTS
    try:
        return file_hash(path)
    except FileNotFoundError:
        raise no_weights(Path(folder)) from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror})") from None


def recorded_weights_hash(folder: Path | str) -> str:
    """Return the sha256 of a model's weights file as its config.json has it, which takes no time.

    Raises:
        ModelFileError: config.json is missing or damaged; or it is of an earlier version, and there are no weights to
            hash.
    """
    record = read_record(folder)
    return record[HASHES]["weights"] if HASHES in record else weights_hash(folder)


def no_weights(folder: Path) -> ModelFileError:
    """Return the error of a model whose weights are missing."""
    return ModelFileError(f"{folder / WEIGHTS} is missing")


def read_record(folder: Path | str) -> dict[str, Any]:
    """Return the content of a model's config.json.

    Raises:
        ModelFileError: missing, not JSON with a section `model`, or not what was written.
    """
    path = Path(folder) / CONFIG
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFileError(f"{path} is missing: no trained model there") from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is not JSON ({error})") from None
    if not isinstance(record, dict) or not isinstance(record.get("model"), dict):
        raise ModelFileError(f"{path} has no section 'model'")
    # Models of earlier versions have no hashes; a damaged name of their key does not make a model one of those.
    if HASHES in record or any(isinstance(value, dict) and "record" in value for value in record.values()):
        hashes = record.get(HASHES)
        whole = isinstance(hashes, dict) and hashes.keys() == {"weights", "record"}
        if not whole or record[HASHES]["record"] != record_hash(record):
            raise ModelFileError(f"{path} is not what was written with its weights")
    return record


def record_hash(record: Mapping[str, Any]) -> str:
    """Return the sha256 of a config.json without its hashes."""
    content = {key: value for key, value in record.items() if key != HASHES}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_origin(folder: Path | str, record: Mapping[str, Any]) -> Origin | None:
    """Return what lies beside the weights in a model's folder.

    Args:
        folder: the folder.
        record: content of its config.json.

    Returns:
        None for a model of an earlier version, whose record does not say of which weights it is.
    """
    if HASHES not in record:
        return None
    card = None
    with suppress(OSError, UnicodeDecodeError):  # a README of something else, or none
        text = (Path(folder) / CARD).read_text(encoding="utf-8")
        card = text if OF_THIS_LIBRARY.match(text) else None
    rest = {key: value for key, value in record.items() if key not in (HASHES, "model")}
    return Origin(rest, card, record[HASHES]["weights"])
