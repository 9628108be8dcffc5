"""A disk that fills up while a model trains: training goes on, and what it says of what is kept is so."""

import signal
from pathlib import Path

import pytest

from acf.errors import StoppedError
from acf.training.checkpoint import BEFORE, NAME
from tests.building_blocks.disk import Disk
from tests.training.trainers import SMALL, same, trainer


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_training_goes_on_while_the_disk_is_full_and_says_so_once(
    tmp_path: Path, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = trainer(tmp_path / "whole", SMALL, steps=10, validate_every=2).run()[0].state_dict()
    run = trainer(tmp_path / "run", SMALL, steps=10, validate_every=2)
    original, kept = run._gradient_step, {}

    def step(rate: float) -> None:
        if run.step in (4, 8):  # full for the checkpoints of steps 6 and 8
            disk.full = not disk.full
            files = {name: (tmp_path / "run" / name).read_bytes() for name in (NAME, BEFORE)}
            assert kept.setdefault("files", files) == files
        original(rate)

    run._gradient_step = step  # type: ignore[method-assign]
    capsys.readouterr()
    flow, _ = run.run()
    assert same(flow.state_dict(), whole)
    said = [line for line in capsys.readouterr().out.splitlines() if "bits/dim" not in line]
    assert said == [
        f"test: cannot write {tmp_path / 'run' / NAME}: No space left on device; free space or make the folder "
        "writable; training goes on and will try again, and until then the next start goes on from step 4",
        "test: checkpoints can be written again; that of step 10 is",
    ]
    assert trainer(tmp_path / "run", SMALL, steps=10, validate_every=2).step == 10
    assert {path.name for path in (tmp_path / "run").iterdir()} == {NAME, BEFORE, "progress.json"}


def test_a_full_disk_is_not_tried_at_each_step(tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time between two checkpoints is that between two tries, too."""
    ages = iter([0.0, 61.0, 0.0, 61.0, 0.0, *[0.0] * 10])  # before the first step, then after each
    monkeypatch.setattr("acf.training.clock.Clock.seconds_since_checkpoint", lambda _: next(ages))
    run = trainer(tmp_path, SMALL, steps=4, validate_every=4)
    tried = []
    original = run.checkpoints.write
    run.checkpoints.write = lambda content, say: (tried.append(content["step"]), original(content, say))  # type: ignore
    disk.full = True
    run.run()
    assert tried == [1, 3, 4]


@pytest.mark.parametrize(
    ("full_from", "kept"),
    [(4, "the next start goes on from step 4"), (0, "the next start begins again")],
    ids=["a checkpoint before", "no checkpoint"],
)
def test_a_signal_says_what_a_full_disk_loses(tmp_path: Path, disk: Disk, full_from: int, kept: str) -> None:
    run = trainer(tmp_path, SMALL)
    original = run._gradient_step

    def step(rate: float) -> None:
        disk.full = run.step >= full_from
        original(rate)
        if run.step == 5:
            signal.raise_signal(signal.SIGTERM)

    run._gradient_step = step  # type: ignore[method-assign]
    with pytest.raises(StoppedError) as caught:
        run.run()
    assert str(caught.value) == (
        f"test: stopped by SIGTERM after step 6; {kept} (cannot write {tmp_path / NAME}: No space left on device; free "
        "space or make the folder writable). Run the same command again to go on"
    )
    disk.full = False
    resumed = trainer(tmp_path, SMALL)
    assert resumed.step == full_from
    whole = trainer(tmp_path / "whole", SMALL).run()[0].state_dict()
    assert same(resumed.run()[0].state_dict(), whole)
    run._gradient_step = original  # type: ignore[method-assign]
    assert same(run.run()[0].state_dict(), whole)
