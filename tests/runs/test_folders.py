"""A folder that is replaced holds the old content or the new, whenever the process ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from acf.errors import UnwritableError
from acf.runs.folders import replace_folder

OLD = {"a.txt": b"old", "figures/b.png": b"old"}
NEW = {"a.txt": b"new", "figures/c.png": b"new"}


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_new_content_takes_the_place_of_the_old(tmp_path: Path) -> None:
    folder = tmp_path / "reports/digits"
    for files in (OLD, NEW):
        replace_folder(folder, files, tmp_path / "lock")
        assert content(folder) == files
    assert list(folder.parent.iterdir()) == [folder]
    assert folder.stat().st_mode == folder.parent.stat().st_mode


def test_a_cache_behind_links_is_not_written_and_linked_folders_stay_linked(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    for name in ("symbolic", "hard"):
        (cache / name).write_bytes(b"cached")
        (cache / name).chmod(0o444)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.txt").symlink_to(cache / "symbolic")
    os.link(cache / "hard", tmp_path / "elsewhere/b.txt")
    (tmp_path / "digits").symlink_to("elsewhere")
    replace_folder(tmp_path / "digits", NEW, tmp_path / "lock")
    assert content(cache) == {"symbolic": b"cached", "hard": b"cached"}
    assert (tmp_path / "digits").is_symlink()
    assert content(tmp_path / "elsewhere") == NEW
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "digits", "elsewhere", "lock"]


@pytest.mark.parametrize("moment", range(8))
def test_a_process_killed_at_any_moment_loses_nothing(tmp_path: Path, moment: int) -> None:
    """Killed before its n-th change of the disk; the next call finds the old or the new content, and tidies up."""
    folder = tmp_path / "digits"
    replace_folder(folder, OLD, tmp_path / "lock")
    script = f"""
import os, pathlib, shutil, sys
from acf.runs import folders
left = [{moment}]
def counted(function):
    def call(*arguments, **keywords):
        if left[0] == 0:
            os._exit(9)
        left[0] -= 1
        return function(*arguments, **keywords)
    return call
os.fsync = counted(os.fsync)
pathlib.Path.rename = counted(pathlib.Path.rename)
shutil.rmtree = counted(shutil.rmtree)
folders.replace_folder(pathlib.Path({str(folder)!r}), {NEW!r}, pathlib.Path({str(tmp_path / "lock")!r}))
"""
    subprocess.run([sys.executable, "-c", script], check=False)
    found = [content(path) for path in tmp_path.iterdir() if path.is_dir()]
    assert OLD in found or NEW in found
    with pytest.raises(UnwritableError):  # a name that no file can have
        replace_folder(folder, {"x" * 300: b""}, tmp_path / "lock")
    assert content(folder) in (OLD, NEW)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits", "lock"]
