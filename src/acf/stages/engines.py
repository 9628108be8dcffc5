"""One engine at a time: while Snakemake runs, DVC's own locks say so to DVC, and the other way round."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from acf.errors import AcfError

FOLDERS = ("code", "data", "models", "results", "samples", "reports")
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
    with repo:
        places = [str((root / name).resolve()) for name in FOLDERS]
        shown = f"{' '.join(command)}  (wait until it ends, or stop it)"
        lock = rwlock(repo.tmp_dir, repo.fs, shown, places, [], repo.config["core"].get("hardlink_lock", False))
        try:
            lock.__enter__()
        except LockError as error:
            raise _busy(root, str(error)) from None
        try:
            yield
        finally:
            lock.__exit__(None, None, None)


def _busy(root: Path, message: str) -> BusyError:
    others = [f"{command} (process {process})" for process, command in BLOCKER.findall(message)]
    return BusyError(
        f"another engine is at work in {root.resolve()}: {', '.join(others) or message}; wait until it ends, "
        "or stop it, and run the same command again"
    )
