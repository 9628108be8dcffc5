"""What a test must leave as it was, for the tests after it: the state of its process, and prepared files."""

import hashlib
import os
import resource
import signal
import tempfile
from pathlib import Path
from typing import Any

import torch

LIMITS = ("RLIMIT_AS", "RLIMIT_FSIZE", "RLIMIT_NOFILE")
READ = ("ACF_", "DVC_", "HOME", "LC_", "MPL", "OMP_", "PATH", "PYTHON", "SLURM_", "TMPDIR")
"""How the variables begin that programs here read; torch and scikit-learn set others when they are first imported."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXFSZ, signal.SIGPROF)


def process_state() -> dict[str, Any]:
    """Return what all tests of a process share and some of them change."""
    environment = {f"${name}": value for name, value in os.environ.items() if name.startswith(READ)}
    return {
        "working folder": os.getcwd(),
        **environment,
        "temporary folder": tempfile.gettempdir(),
        "threads of torch": torch.get_num_threads(),
        "default dtype of torch": torch.get_default_dtype(),
        "default device of torch": torch.get_default_device(),
        "gradients of torch": torch.is_grad_enabled(),
        "deterministic algorithms of torch": torch.are_deterministic_algorithms_enabled(),
        **{name: resource.getrlimit(getattr(resource, name)) for name in LIMITS},
        **{number.name: signal.getsignal(number) for number in SIGNALS},
    }


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return in words what differs."""
    return [
        f"{name} was {before.get(name)} and is {after.get(name)}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def contents(root: Path) -> dict[str, str]:
    """Return a hash of each file below a folder."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
