"""Prepare a data set where writing is refused; run by test_refused.py in an empty folder of its own.

python -m tests.data.refused NAME PARTS MIRROR. Files may not grow beyond a limit, as on a full disk, at PARTS
limits spread over the size of the largest file; then the folder for data is read-only. Prints what went wrong, and how
often writing was refused. Children are forked, so that imports, and parsing the code for its hashes, cost time once.
"""

import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from acf.data.listing import overview
from acf.errors import DataError
from acf.runs.recipe import code_hashes
from acf.stages.prepare import prepare
from tests.data import sources
from tests.data.killed import clean, files

NOBODY = 65534


def attempt(name: str, restrict: Callable[[], None]) -> str:
    """Prepare in a child process after `restrict`; return its message, empty if it succeeds."""
    reader, writer = os.pipe()
    if not (pid := os.fork()):
        message = "no message"
        try:
            sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
            restrict()
            prepare(name)
            message = ""
        except DataError as error:
            message = str(error)
        except BaseException as error:
            message = f"unexpected {error!r}"
        finally:
            os.write(writer, message.encode())
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        message = pipe.read()
    os.waitpid(pid, 0)
    return message


def fault(message: str, refusal: str) -> str:
    """What is wrong with a refused attempt."""
    wanted = message.startswith("cannot write data") and message.endswith(
        f": {refusal}; free space or make the folder writable"
    )
    if not wanted or "\n" in message:
        return f"message {message!r}"
    if left := {path for path in files() if not path.endswith("/train.pth")}:
        return f"left {left}"
    return ""


def limited(limit: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def read_only() -> None:
    """Make the folder read-only, for root too, who may write anywhere."""
    Path("data").mkdir()
    Path("data").chmod(0o555)
    if os.getuid() == 0:
        os.setuid(NOBODY)


def main() -> None:
    name, parts, mirror = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    sources.shrink(pytest.MonkeyPatch())
    os.environ["ACF_MIRROR"] = mirror
    overview()  # imports all
    code_hashes("prepare")  # parses all
    clean()
    if message := attempt(name, lambda: None):
        sys.exit(message)
    whole = files()
    largest = max(path.stat().st_size for path in Path("data").rglob("*") if path.is_file())
    refused = 0
    for part in range(parts):
        clean()
        limit = largest * part // parts
        if message := attempt(name, limited(limit)):
            refused += 1
            if wrong := fault(message, "File too large"):
                print(f"limit {limit}: {wrong}")
        # Without the limit it goes on from what is there.
        if message := attempt(name, lambda: None):
            print(f"after limit {limit}: {message}")
        elif files() != whole:
            print(f"after limit {limit}: {files()} instead of {whole}")
    clean()
    if wrong := fault(attempt(name, read_only), "Permission denied"):
        print(f"read-only folder: {wrong}")
    print(f"refused {refused}")


if __name__ == "__main__":
    main()
