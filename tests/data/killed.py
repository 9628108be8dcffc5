"""Prepare a data set again and again, killed at points spread over the whole stage; run by test_killed.py.

python -m tests.data.killed NAME POINTS MIRROR, in an empty folder. Prints what went wrong, and the number of points at
which the process was indeed killed. Children are forked, so that all their time is that of the stage.
"""

import hashlib
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import pytest

from acf.data import verify
from acf.runs.recipe import code_hashes
from acf.stages.prepare import prepare
from tests.data import sources


def files() -> dict[str, str]:
    """Hashes of what the stage leaves, but for the folder of downloads."""
    found = [path for path in Path("data").rglob("*") if path.is_file() and ".downloads" not in path.parts]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def child(name: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        prepare(name)
        os._exit(0)
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
        os._exit(1)


def clean() -> None:
    shutil.rmtree("data", ignore_errors=True)
    Path("data-hashes.json").unlink(missing_ok=True)


def main() -> None:
    name, points, mirror = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    sources.shrink(pytest.MonkeyPatch())
    code_hashes("prepare")  # which parses the code, as each child would have to
    os.environ["ACF_MIRROR"] = mirror
    durations = []
    for _ in range(3):
        clean()
        start = time.perf_counter()
        if os.waitpid(child(name), 0)[1]:
            sys.exit("the stage fails by itself")
        durations.append(time.perf_counter() - start)
    whole, length, killed = files(), sorted(durations)[1], 0
    for point in range(points):
        clean()
        pid = child(name)
        time.sleep(length * (point + 0.5) / points)
        os.kill(pid, signal.SIGKILL)
        killed += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        if os.waitpid(child(name), 0)[1]:
            print(f"killed at {point + 0.5} of {points}: the next run failed")
        elif files() != whole:
            print(f"killed at {point + 0.5} of {points}: {files()} instead of {whole}")
        verify(name)
    print(f"killed {killed}")


if __name__ == "__main__":
    main()
