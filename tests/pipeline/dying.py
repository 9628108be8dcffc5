"""`acf`, whose training dies at the moment that the first line of moments.txt names; what is run in place of `acf`.

Each start takes one line away. Without a line it is `acf` itself. A line is one of `KINDS` and a number n:

- `step`: some time after the n-th step of this start has begun, a third number of seconds of CPU time.
- `stop`: SIGTERM in the n-th step.
- `engine`: in the n-th step, together with all processes of its session.
- `open`, `half`, `rotate`, `rename`, `renamed`: in the n-th writing of a checkpoint, namely before its temporary file,
  with half of it on the disk, before and after the last checkpoint has become the one before, and after all.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOMENTS = Path("moments.txt")
WRITING = ("open", "half", "rotate", "rename", "renamed")
KINDS = ("step", "stop", "engine", *WRITING)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_with_the_engine() -> None:
    here = (os.getpid(), os.getsid(0))
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            if pid != here[0] and os.getsid(pid) == here[1]:
                os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    die()


def die_later(seconds: float) -> None:
    end = time.process_time() + seconds

    def wait() -> None:
        while time.process_time() < end:
            time.sleep(0.001)
        die()

    threading.Thread(target=wait, daemon=True).start()


def in_step(number: int, act: Callable[[], object]) -> None:
    from acf.training.trainer import Trainer

    original, steps = Trainer._gradient_step, iter(range(1, 10**6))

    def step(self: Trainer, *arguments: Any) -> Any:
        if next(steps) == number:
            act()
        return original(self, *arguments)

    Trainer._gradient_step = step  # type: ignore[method-assign]


def in_writing(kind: str, number: int) -> None:
    from acf.runs.files import temporary_of
    from acf.training.checkpoint import BEFORE, NAME

    temporary, writes = temporary_of(Path(NAME)).name, [0]
    open_file, fsync, replace = os.open, os.fsync, os.replace

    def here(*kinds: str) -> bool:
        return kind in kinds and writes[0] == number

    def opening(path: Any, *arguments: Any, **options: Any) -> int:
        if Path(os.fsdecode(path)).name == temporary:
            writes[0] += 1
            if here("open"):
                die()
        return open_file(path, *arguments, **options)

    def syncing(descriptor: int) -> None:
        if here("half") and Path(os.readlink(f"/proc/self/fd/{descriptor}")).name == temporary:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            die()
        fsync(descriptor)

    def replacing(source: Any, target: Any) -> None:
        name = Path(target).name
        if (here("rotate") and name == BEFORE) or (here("rename") and name == NAME):
            die()
        replace(source, target)
        if here("renamed") and name == NAME:
            die()

    os.open, os.fsync, os.replace = opening, syncing, replacing  # type: ignore[assignment]


def prepare(moment: str) -> None:
    kind, number, *more = moment.split()
    if kind in WRITING:
        in_writing(kind, int(number))
    elif kind == "step":
        in_step(int(number), lambda: die_later(float(more[0])))
    elif kind == "stop":
        in_step(int(number), lambda: os.kill(os.getpid(), signal.SIGTERM))
    else:
        in_step(int(number), die_with_the_engine)


if __name__ == "__main__":
    lines = MOMENTS.read_text().splitlines() if sys.argv[1] == "train" and MOMENTS.exists() else []
    if lines:
        MOMENTS.write_text("".join(f"{line}\n" for line in lines[1:]))
        prepare(lines[0])
    from acf.cli import main

    main()
