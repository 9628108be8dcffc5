"""The commit of the code and the settings, for people: nothing depends on it."""

import subprocess
from pathlib import Path

NOT_AVAILABLE = "not available"


def code_commit(root: Path, places: tuple[str, ...] = ("src", "params.yaml")) -> str:
    """Return the last commit that changed code or settings, and whether they have been changed since.

    It stays the same when results, reports or documents are committed, so a page that names it does too.

    Args:
        root: folder of the project.
        places: the files and folders that count, below `root`.

    Returns:
        The commit's hash; "not available" where git, a repository or a commit of these places is missing.
    """
    commit = _git(root, "log", "-1", "--format=%H", "--", *places)
    if not commit:
        return NOT_AVAILABLE
    changed = _git(root, "status", "--porcelain", "--", *places)
    return f"{commit}, with changes that were not committed" if changed else commit


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
