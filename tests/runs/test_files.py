"""Files that appear whole or not at all, whatever happens while they are written."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from acf.errors import UnwritableError
from acf.runs.files import replacing, write_atomically

WRITE = """
import sys
from pathlib import Path
from acf.runs.files import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write(sys.argv[2].encode())
    file.flush()
    print("half", flush=True)
    sys.stdin.readline()
    file.write(sys.argv[2].encode())
"""


def start(path: Path, text: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITE, str(path), text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_nothing_else_is_left(tmp_path: Path) -> None:
    write_atomically(tmp_path / "new" / "file", b"one")
    write_atomically(tmp_path / "new" / "file", b"two")
    assert contents(tmp_path / "new") == {"file": b"two"}


def test_what_a_killed_process_left_is_overwritten_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    for _ in range(2):
        with start(path, "a longer text") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "half\n"
            process.send_signal(signal.SIGKILL)
        assert path.read_bytes() == b"old"
        assert len(contents(tmp_path)) == 2
    write_atomically(path, b"new")
    assert contents(tmp_path) == {"file": b"new"}


def test_two_processes_write_one_after_the_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with start(path, "first") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "half\n"
        with start(path, "2") as second:
            first.communicate("go on\n", timeout=20)
            assert path.read_bytes() == b"firstfirst"
            second.communicate("go on\n", timeout=20)
    assert contents(tmp_path) == {"file": b"22"}


def test_an_error_within_leaves_the_old_content(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"old")
    with pytest.raises(TypeError), replacing(tmp_path / "file") as file:
        file.write("no bytes")  # type: ignore[arg-type]
    assert contents(tmp_path) == {"file": b"old"}


def test_a_full_disk_is_one_sentence_with_file_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(UnwritableError, match=rf"cannot write {path}: File too large; free space or make"):
            write_atomically(path, bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert contents(tmp_path) == {"file": b"old"}


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    (tmp_path / "folder").touch()
    for path in (tmp_path / "file", tmp_path / "folder" / "file"):
        with pytest.raises(UnwritableError, match=rf"cannot write {path}: .*; remove what is in its place"):
            write_atomically(path, b"new")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
