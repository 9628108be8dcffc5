"""Finished outputs: restored at once, and on a full disk waited for, or refused with a word on what is lost."""

import subprocess
import sys
from pathlib import Path

import pytest

from acf.errors import NoSpaceError, UnwritableError
from acf.runs import files
from acf.runs.store import RunStore
from acf.stages.cached import Computation, Outputs
from tests.building_blocks.disk import Disk

FULL = "No space left on device; free space or make the folder writable"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def computation(tmp_path: Path) -> Computation:
    outputs = Outputs({"a": b"A", "b": b"B"}, loss="the next start goes on from step 4")
    return Computation("train", {}, {}, [tmp_path / "models" / name for name in "ab"], 1, lambda _: outputs)


def test_outputs_wait_for_space(
    tmp_path: Path,
    computation: Computation,
    disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        disk.full = len(pauses) < 3

    monkeypatch.setattr(files.time, "sleep", pause)
    disk.full = True
    computation.restore_or_compute(tmp_path)
    assert (tmp_path / "models/a").read_bytes() + (tmp_path / "models/b").read_bytes() == b"AB"
    assert pauses == [files.RETRY_SECONDS] * 3
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"cannot write {tmp_path / 'models/a'}: {FULL}; trying again for 10 minutes",
        f"wrote {tmp_path / 'models'}",
    ]


def test_what_is_lost_is_said_when_no_space_comes(
    tmp_path: Path, computation: Computation, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "WAIT_SECONDS", 0.02)
    monkeypatch.setattr(files, "RETRY_SECONDS", 0.01)
    disk.full = True
    with pytest.raises(UnwritableError) as caught:
        computation.restore_or_compute(tmp_path)
    assert str(caught.value) == f"cannot write {tmp_path / 'models/a'}: {FULL}; the next start goes on from step 4"
    assert not list((tmp_path / "models").iterdir())


def test_outputs_that_are_written_but_cannot_be_kept_are_no_failure(
    tmp_path: Path,
    computation: Computation,
    disk: Disk,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An engine would remove them after a failure."""
    keep = RunStore.keep

    def full(store: RunStore, paths: list[Path]) -> None:
        (store.folder / "checkpoint.pt").touch()
        disk.full = True
        keep(store, paths)

    monkeypatch.setattr(RunStore, "keep", full)
    computation.restore_or_compute(tmp_path)
    assert (tmp_path / "models/b").read_bytes() == b"B"
    (store,) = (tmp_path / ".acf/runs").iterdir()
    assert (store / "checkpoint.pt").exists()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"cannot write {store / 'outputs/a'}: {FULL}; {tmp_path / 'models'} cannot be restored from {store}"


def test_another_refusal_is_not_waited_for(
    tmp_path: Path, computation: Computation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.time, "sleep", lambda _: pytest.fail("it waits"))
    (tmp_path / "models/b").mkdir(parents=True)
    with pytest.raises(UnwritableError, match="remove what is in its place; the next start goes on from") as caught:
        computation.restore_or_compute(tmp_path)
    assert not isinstance(caught.value, NoSpaceError)


def test_what_is_restored_does_not_wait_for_torch(trained: Path) -> None:
    script = (
        "import sys; from acf.stages import baselines, evaluate; from acf.stages.train import train; "
        "train('digits', 'acf-l2', 0, 'cpu'); print(*{'torch', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=trained, capture_output=True, text=True, check=True)
    restored, loaded = done.stdout.splitlines()
    assert restored.startswith("restored")
    assert loaded == ""
