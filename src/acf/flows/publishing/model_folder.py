"""A folder with a model for others: weights, configuration and model card, none put over another thing."""

from collections.abc import Mapping
from pathlib import Path

from acf.errors import UnwritableError
from acf.flows.record import CARD, CONFIG, WEIGHTS
from acf.runs.files import write_if_changed, writing

ORDER = (WEIGHTS, CARD, CONFIG)
"""The configuration comes last, without which a folder holds no model."""


def write_model_folder(folder: Path | str, files: Mapping[str, bytes], replace: bool = False) -> bool:
    """Write the files of a model into `folder`, each complete or not at all, and return whether any has changed.

    What else is in the folder stays there. Files that have this content already are left alone.

    Args:
        folder: made if missing.
        files: content by name, those of `ORDER`.
        replace: whether files with another content may be replaced.

    Raises:
        UnwritableError: there is such a file and `replace` is false, or a file cannot be written.
    """
    folder = Path(folder)
    others = [name for name in ORDER if _is_other(folder / name, files[name])]
    if others and not replace:
        raise UnwritableError(
            f"{folder} has a {' and a '.join(others)} already, with another content; name another folder, or have "
            "files replaced: --replace on the command line, replace=True in Python"
        )
    return any([write_if_changed(folder / name, files[name]) for name in ORDER])  # a list, so that all are written


def _is_other(path: Path, content: bytes) -> bool:
    with writing(path):
        return path.exists() and path.read_bytes() != content
