import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from acf.errors import UnwritableError
from acf.runs import RunStore, open_run
from acf.runs.store import sweep


@pytest.fixture
def outputs(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"\x00weights\xff")
    (folder / "history.csv").write_text("step\n1\n")
    return [folder / "model.bin", folder / "history.csv"]


def remove(outputs: list[Path]) -> None:
    for path in outputs:
        path.unlink()
    outputs[0].parent.rmdir()


def test_kept_outputs_come_back(tmp_path: Path, outputs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    open_run("abc", tmp_path).keep(outputs)
    remove(outputs)
    assert open_run("abc", tmp_path).restore(outputs)
    assert outputs[0].read_bytes() == b"\x00weights\xff"
    assert outputs[1].read_text() == "step\n1\n"
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "restored model.bin, history.csv" in said
    assert "delete that folder" in said


def test_nothing_to_restore(tmp_path: Path, outputs: list[Path]) -> None:
    open_run("abc", tmp_path).keep(outputs)
    assert not open_run("abd", tmp_path).restore(outputs)
    assert not open_run("abc", tmp_path).restore([*outputs, outputs[0].with_name("config.json")])


DAMAGES = [
    "stored file",
    "short file",
    "missing file",
    "a folder for a file",
    "done.json",
    b"",
    b"[]",
    b"null",
    b'{"sha256": null}',
    b'{"sha256": 5}',
    b'{"sha256": {"model.bin": 1, "history.csv": 2}}',
    b"\xff" * 9,
    b"[" * 100_000,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: str(damage)[:20])
def test_damage_is_noticed(
    tmp_path: Path, outputs: list[Path], damage: str | bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    run = open_run("abc", tmp_path)
    run.keep(outputs)
    stored = run.folder / "outputs" / "model.bin"
    if isinstance(damage, bytes):
        (run.folder / "done.json").write_bytes(damage)
    elif damage in ("missing file", "a folder for a file"):
        stored.unlink()
        if damage == "a folder for a file":
            stored.mkdir()
            (stored / "x").touch()
    else:
        path = run.folder / "done.json" if damage == "done.json" else stored
        path.write_bytes(path.read_bytes()[:5] if damage != "stored file" else b"\x00weights\xfe")
    outputs[0].write_bytes(b"untouched")
    assert not run.restore(outputs)
    assert outputs[0].read_bytes() == b"untouched"
    assert "damaged; computing" in capsys.readouterr().out
    outputs[0].write_bytes(b"again")
    if damage == "a folder for a file":
        with pytest.raises(UnwritableError, match=r"model\.bin: Is a directory; remove what is in its place"):
            run.keep(outputs)
        return
    run.keep(outputs)
    outputs[0].unlink()
    assert run.restore(outputs)
    assert outputs[0].read_bytes() == b"again"


def test_keeping_is_not_done_while_an_output_is_missing(tmp_path: Path, outputs: list[Path]) -> None:
    run = open_run("abc", tmp_path)
    run.keep(outputs)
    outputs[1].unlink()
    with pytest.raises(FileNotFoundError):
        run.keep(outputs)
    assert not run.restore(outputs)


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.name != "lock"}


KEPT = {"done.json", "outputs/model.bin", "outputs/history.csv"}


def test_checkpoints_go_once_the_outputs_are_kept(tmp_path: Path, outputs: list[Path]) -> None:
    run = open_run("abc", tmp_path)
    (run.folder / "checkpoint.pt").touch()
    (run.folder / "steps").mkdir()
    (run.folder / "steps" / "1").touch()
    run.tidy()
    assert files(run.folder) == {"checkpoint.pt", "steps/1"}
    run.keep(outputs)
    assert files(run.folder) == KEPT
    assert not (run.folder / "steps").exists()
    remove(outputs)
    assert run.restore(outputs)


def test_checkpoints_stay_when_the_kept_outputs_are_damaged(tmp_path: Path, outputs: list[Path]) -> None:
    run = open_run("abc", tmp_path)
    run.keep(outputs)
    (run.folder / "outputs" / "model.bin").write_bytes(b"damaged")
    (run.folder / "checkpoint.pt").touch()
    run.tidy()
    assert "checkpoint.pt" in files(run.folder)


def test_the_sweep_removes_leftovers_of_every_recipe_that_nobody_holds(tmp_path: Path, outputs: list[Path]) -> None:
    leftovers = (".checkpoint.pt.tmp", ".checkpoint.pt.4711.tmp", "outputs/.model.bin.tmp", "outputs/.model.bin.9.tmp")
    for recipe in ("finished", "begun", "held"):
        run = open_run(recipe, tmp_path)
        (run.folder / "outputs").mkdir()
        for name in (*leftovers, "checkpoint.pt"):
            (run.folder / name).write_bytes(b"half")
    before = files(tmp_path / ".acf/runs/held")
    with open_run("held", tmp_path).locked():
        finished = open_run("finished", tmp_path)
        finished.keep(outputs)
        (finished.folder / "checkpoint.pt").touch()
        sweep(tmp_path)
    assert files(tmp_path / ".acf/runs/held") == before
    assert files(tmp_path / ".acf/runs/begun") == {"checkpoint.pt"}
    assert files(tmp_path / ".acf/runs/finished") == KEPT


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / ".acf").touch()
    with pytest.raises(UnwritableError, match=r"cannot write .*\.acf/runs/abc: .*; remove what is in its place"):
        open_run("abc", tmp_path)


HOLD = """
import sys, time
from pathlib import Path
from acf.runs import RunStore
with RunStore(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.readline()
    Path(sys.argv[1], "seen").write_text("first")
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process


def test_second_process_waits_and_says_so(tmp_path: Path) -> None:
    with hold(tmp_path / "run") as first:
        assert first.stdout.readline() == "held\n"
        with hold(tmp_path / "run") as second:
            assert "another process is at work" in second.stdout.readline()
            first.communicate("go on\n", timeout=20)
            assert second.stdout.readline() == "held\n"
            assert (tmp_path / "run" / "seen").read_text() == "first"
            second.communicate("go on\n", timeout=20)


def test_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    with hold(tmp_path / "run") as first:
        assert first.stdout.readline() == "held\n"
        os.kill(first.pid, signal.SIGKILL)
        first.wait(timeout=20)
        with RunStore(tmp_path / "run").locked() as run:
            assert run.folder == tmp_path / "run"
