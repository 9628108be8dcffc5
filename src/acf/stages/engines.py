"""One engine at a time: while Snakemake runs, DVC's own locks say so to DVC, and the other way round."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from acf.errors import AcfError

FOLDERS = ("code", "data", "models", "results", "samples", "analyses", "reports", "summaries", "curves")
"""All outputs of both engines lie in these."""
BLOCKER = re.compile(r"\(PID (\d+)\): (.*)")


class BusyError(AcfError):
    """Another engine is at work in this folder."""


@contextmanager
def dvc_waits(*command: str, root: Path = Path(".")) -> Iterator[None]:
    """Hold the locks of DVC on the folders of all outputs, so that no stage of DVC runs meanwhile.

    They are those of a reader, which several Snakemakes can hold (they have locks of their own for each file). DVC
    takes a lock from a process that has died. A folder without DVC needs no lock.

    Args:
        command: what DVC names as the process in its way.
        root: the project's top folder.

    Raises:
        BusyError: DVC is running a stage; names its process.
    """
    from dvc.exceptions import NotDvcRepoError
    from dvc.lock import LockError
    from dvc.repo import Repo
    from dvc.rwlock import rwlock

    try:
        repo = Repo(str(root))
    except NotDvcRepoError:
        yield
        return
    with repo, ExitStack() as held:
        places = [str((root / name).resolve()) for name in FOLDERS]
        shown = f"{' '.join(command)}  (wait until it ends, or stop it)"
        hardlink = repo.config["core"].get("hardlink_lock", False)
        with busy(root, LockError):
            held.enter_context(rwlock(repo.tmp_dir, repo.fs, shown, places, [], hardlink))
        yield


@contextmanager
def busy(root: Path, error: type[Exception]) -> Iterator[None]:
    """Turn the `LockError` of DVC, which is `error`, into a `BusyError` that names the process in the way."""
    try:
        yield
    except error as refusal:
        others = [f"{command} (process {process})" for process, command in BLOCKER.findall(str(refusal))]
        raise BusyError(
            f"another engine is at work in {root.resolve()}: {', '.join(others) or refusal}; wait until it ends, "
            "or stop it, and run the same command again"
        ) from None
