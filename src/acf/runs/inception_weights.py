"""Where the weights are that FID is defined by, and what FID depends on outside a project."""

import hashlib
import os
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FILE = "weights-inception-2015-12-05-6726825d.pth"
"""Name that torch-fidelity gives the file, with the beginning of its SHA-256, as torch.hub does."""
SOURCE = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILE}"
VARIABLE = "ACF_INCEPTION"


def inception_place() -> Path:
    """Return the place of the weights: what ACF_INCEPTION names, else where torch.hub keeps what it has fetched."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    cache_home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    home = Path(os.environ.get("TORCH_HOME") or cache_home / "torch").expanduser()
    return home / "hub" / "checkpoints" / FILE


def installed_version(package: str) -> str | None:
    """Return the version of a package, None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def weights_digest(path: Path) -> str | None:
    """Return the SHA-256 of the file, None where there is none."""
    try:
        state = path.stat()
        return _digest(path, state.st_mtime_ns, state.st_size)
    except OSError:
        return None


def inception_state() -> dict[str, str]:
    """Return what a recipe says of FID's outside: versions of the packages, and the hash of the weights."""
    packages = {package: installed_version(package) or "absent" for package in ("torch-fidelity", "torchvision")}
    return {**packages, "inception": weights_digest(inception_place()) or "absent"}


@cache
def _digest(path: Path, changed: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
