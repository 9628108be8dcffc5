"""Optional packages: which extra of this package brings each of them, and the error that says so."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, requires

from acf.errors import MissingPackageError

PROJECT = "acf"
PACKAGES = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}
"""Packages that are imported by another name than theirs; the metadata of a package that is missing says no names."""


@contextmanager
def needed_by(what: str) -> Iterator[None]:
    """Turn the failure to import an optional package, anywhere in the context, into one that says how to install it.

    Args:
        what: needs the package, as the subject of a sentence: "acf report", "a folder of images".

    Raises:
        MissingPackageError: one of the packages in this package's metadata is not installed. Other modules that
            cannot be found are left to Python.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = _package(error.name or "")
        if (command := install_command(package)) is None:
            raise
        raise MissingPackageError(
            f"{what} needs {package}, which is not installed: {command}", name=error.name
        ) from error


def install_command(package: str) -> str | None:
    """Return the command that installs a package with the first extra that has it, None where no extra needs it.

    Args:
        package: by the name under which it is installed.
    """
    for needed, extra in _requirements():
        if needed == _normalised(package):
            return f"pip install '{PROJECT}[{extra}]'" if extra else f"pip install {PROJECT}"
    return None


def _requirements() -> Iterator[tuple[str, str]]:
    """Yield the packages of the metadata, normalised, each with its extra; "" where it is always needed."""
    try:
        lines = requires(PROJECT) or []
    except PackageNotFoundError:  # a copy of the code that is not installed
        return
    for line in lines:
        name = re.match(r"[\w.-]+", line)
        extra = re.search(r"""\bextra\s*==\s*["']([\w.-]+)["']""", line)
        if name and name[0] != PROJECT:  # an extra that has others in it
            yield _normalised(name[0]), extra[1] if extra else ""


def _package(module: str) -> str:
    """Return the name of the package that has a module."""
    top = module.partition(".")[0]
    return PACKAGES.get(top, _normalised(top))


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
