"""The queue for devices: a folder with one entry for each process that holds devices or waits for them."""

import json
import os
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from acf.errors import UnwritableError, shown
from acf.runs.files import discard, writing


@dataclass(frozen=True)
class Entry:
    """What one process holds or waits for.

    Attributes:
        who: the process, in words.
        wants: identities of the devices any of which would do.
        holds: identities of those it has; empty while it waits.
    """

    who: str
    wants: Sequence[str]
    holds: Sequence[str] = ()


class Place:
    """A place in the queue of `folder`, from the moment the context is entered until its end.

    An entry counts while its file lock is held, which the operating system releases when a process dies, however it
    does. Entries are read and written by one process at a time, so devices are taken all at once or not at all, and
    nobody holds some while waiting for others. No device is taken that someone waits for who came earlier.
    """

    def __init__(self, folder: Path, wants: Sequence[str], count: int) -> None:
        from filelock import FileLock

        self._folder, self._wants, self._count = folder, wants, count
        self._turn = FileLock(folder / "turn")
        self._others: list[Entry] = []

    def __enter__(self) -> Self:
        from filelock import FileLock

        with self._alone():
            # Times of processes that come one after the other differ, since each is alone here.
            self._path = self._folder / f"{time.time_ns():020d}.lock"
            self._lock = FileLock(self._path)
            try:
                self._lock.acquire(timeout=0)
                self._write(Entry(_this_process(), self._wants))
            except BaseException:
                self._leave()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def take(self) -> Sequence[str]:
        """Return the devices that are this place's from now on, or none if there are not enough free."""
        with self._alone():
            earlier, later = self._living()
            self._others = [*earlier, *(entry for entry in later if entry.holds)]
            unfree = {name for entry in self._others for name in entry.holds or entry.wants}
            free = [name for name in self._wants if name not in unfree][: self._count]
            if len(free) < self._count:
                return ()
            self._write(Entry(_this_process(), self._wants, free))
            return free

    def reason(self) -> str:
        """Return for whom the last `take` had to wait, in words."""
        concerned = [entry for entry in self._others if {*(entry.holds or entry.wants)} & {*self._wants}]
        holders = [entry.who for entry in concerned if entry.holds]
        waiting = [entry.who for entry in concerned if not entry.holds]
        parts = {"used by": holders, "asked for before by": waiting}
        return "; ".join(f"{what} {', '.join(who)}" for what, who in parts.items() if who)

    def _living(self) -> tuple[list[Entry], list[Entry]]:
        """Return the entries of living processes before and after this one, and remove those of dead ones."""
        from filelock import FileLock, Timeout

        earlier: list[Entry] = []
        later: list[Entry] = []
        for path in sorted(self._folder.glob("*.lock")):
            if path == self._path:
                continue
            try:
                with FileLock(path, timeout=0):
                    _remove(path)
            except Timeout:
                with suppress(FileNotFoundError):  # its process has just left
                    entry = Entry(**json.loads(_content_of(path).read_bytes()))
                    (earlier if path < self._path else later).append(entry)
        return earlier, later

    def _write(self, entry: Entry) -> None:
        path = _content_of(self._path)
        with writing(path):
            path.write_text(json.dumps(asdict(entry)), encoding="utf-8")

    def _leave(self) -> None:
        _remove(self._path)
        self._lock.release()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from reading and writing entries."""
        try:
            with writing(self._folder):
                self._turn.acquire()
        except NotImplementedError:
            raise UnwritableError(
                f"{self._folder} is on a file system without file locks; set TMPDIR to a folder that has them"
            ) from None
        try:
            yield
        finally:
            self._turn.release()


def lease_folder() -> Path:
    """Return this user's folder of leases, below the temporary folder, or ~/.cache where that one is someone else's.

    Raises:
        UnwritableError: neither can be made, or neither belongs to this user alone.
    """
    places = [Path(tempfile.gettempdir(), f"acf-leases-{os.getuid()}")]
    with suppress(RuntimeError):  # a user without a home
        places.append(Path.home() / ".cache/acf/leases")
    for place in places:
        if _is_own(place):
            return place
    raise UnwritableError(
        f"cannot keep leases of devices in {' or '.join(map(str, places))}: no such folder of this user can be made; "
        "remove what is in its place or set TMPDIR to a folder that can be written"
    )


def _is_own(folder: Path) -> bool:
    """Make a folder that this user alone can write, and say whether it is one: others may have put something there."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        if not (stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()):
            return False
        folder.chmod(0o700)
    except OSError:
        return False
    return True


def _content_of(lock: Path) -> Path:
    """Return the file of an entry; not the lock itself, since some versions of filelock empty the file they lock."""
    return lock.with_suffix(".json")


def _remove(lock: Path) -> None:
    """Remove an entry, whose lock the caller holds; the lock last, by which entries are found."""
    discard(_content_of(lock))
    discard(lock)


def _this_process() -> str:
    command = " ".join(sys.argv[1:]) or sys.argv[0]
    return f"process {os.getpid()} ({shown(command, 120)[1:-1]} in {Path.cwd()})"
