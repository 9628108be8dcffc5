import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from acf.runs import RunStore, open_run, write_atomically


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


@pytest.mark.parametrize("damage", ["stored file", "short file", "done.json", "missing file"])
def test_damage_is_noticed(
    tmp_path: Path, outputs: list[Path], damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = open_run("abc", tmp_path)
    run.keep(outputs)
    stored = run.folder / "outputs" / "model.bin"
    if damage == "missing file":
        stored.unlink()
    else:
        path = run.folder / "done.json" if damage == "done.json" else stored
        path.write_bytes(path.read_bytes()[:5] if damage != "stored file" else b"\x00weights\xfe")
    outputs[0].write_bytes(b"untouched")
    assert not run.restore(outputs)
    assert outputs[0].read_bytes() == b"untouched"
    assert "damaged; computing" in capsys.readouterr().out
    outputs[0].write_bytes(b"again")
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


def test_atomic_write_leaves_no_other_files(tmp_path: Path) -> None:
    write_atomically(tmp_path / "new" / "file", b"one")
    write_atomically(tmp_path / "new" / "file", b"two")
    assert {p.name: p.read_bytes() for p in (tmp_path / "new").iterdir()} == {"file": b"two"}


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
