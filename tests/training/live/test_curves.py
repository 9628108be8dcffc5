"""Curves while a training runs: the rows of its history, after a resume as well, and never at the training's cost."""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from acf.errors import ConfigError
from acf.registry import SINKS
from acf.stages.live import Live
from acf.stages.train import train
from acf.training.live.curves import LiveCurves, require_sinks
from acf.training.live.sink import points
from tests.training.live.readers import READERS, require_same
from tests.training.trainers import SMALL, same, trainer

RUN = ("digits", "resflow", 0, "cpu")


@pytest.fixture(params=sorted(READERS))
def sink(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param, reason=f"{request.param} is not installed (pip install 'acf[live]')")
    return str(request.param)


def test_every_sink_has_a_reader_here() -> None:
    assert READERS.keys() == SINKS.keys()


def test_a_training_that_goes_on_from_an_earlier_step_has_every_row_once(tmp_path: Path, sink: str) -> None:
    """It was killed two rows after its last checkpoint, which it computes anew."""
    place = tmp_path / "curves"
    seen: list[int] = []

    with LiveCurves("test", {sink: place}) as curves:

        def killed_after_step_6(rows: Sequence[Mapping[str, Any]]) -> None:
            curves.update(rows)
            seen.extend(row["step"] for row in rows[len(seen) :])
            if seen[-1:] == [6]:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            trainer(tmp_path / "run", SMALL, watch=killed_after_step_6).run()
    assert [step for step, _ in READERS[sink](place)["train/bits_per_dim"]] == [1, 2, 3, 4, 5, 6]
    with LiveCurves("test", {sink: place}) as curves:
        second = trainer(tmp_path / "run", SMALL, watch=curves.update)
        assert second.step == 4
        second.run()
    require_same(READERS[sink](place), second.history.rows)


def test_nothing_that_was_shown_is_removed_before_a_row_comes(tmp_path: Path) -> None:
    (tmp_path / "shown").mkdir()
    with LiveCurves("test", {"tensorboard": tmp_path / "shown"}) as curves:
        curves.update([])
    assert (tmp_path / "shown").exists()


class FullDisk:
    """A sink whose disk is full after three rows."""

    package = "json"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, row: Mapping[str, Any]) -> None:
        if row["step"] == 4:
            raise OSError(28, "No space left on device")

    def flush(self) -> None: ...

    def close(self) -> None:
        raise AssertionError("a sink that has failed is left alone")


class Recorder:
    """A sink that notes what it is told."""

    package = "json"
    rows: list[dict[str, float]]
    closed = 0

    def __init__(self, folder: Path) -> None:
        type(self).rows = []

    def write(self, row: Mapping[str, Any]) -> None:
        self.rows.append(points(row))

    def flush(self) -> None: ...

    def close(self) -> None:
        type(self).closed += 1


def test_a_sink_that_fails_is_one_line_and_ends_neither_training_nor_other_sinks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SINKS, "full", f"{__name__}:FullDisk")
    monkeypatch.setitem(SINKS, "other", f"{__name__}:Recorder")
    alone = trainer(tmp_path / "alone", SMALL)
    alone.run()
    capsys.readouterr()
    with LiveCurves("test", {"full": tmp_path / "full", "other": tmp_path / "other"}) as curves:
        watched = trainer(tmp_path / "watched", SMALL, watch=curves.update)
        watched.run()
    assert same(watched.flow.state_dict(), alone.flow.state_dict())
    assert Recorder.rows == [points(row) for row in watched.history.rows]
    assert Recorder.closed == 1
    said = [line for line in capsys.readouterr().out.splitlines() if "full" in line]
    assert said == ["test: full shows no more rows (OSError: [Errno 28] No space left on device); training goes on"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    with LiveCurves("test", {"tensorboard": tmp_path / "file" / "curves"}) as curves:
        for rows in ([{"step": 1}], [{"step": 1}, {"step": 2}]):
            curves.update(rows)
    said = capsys.readouterr().out
    assert said.count("tensorboard shows no more rows (NotADirectoryError") == said.count("\n") == 1


@pytest.mark.parametrize("name", sorted(SINKS))
def test_a_missing_package_is_said_before_training_begins(
    study: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    root = study()
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    with pytest.raises(ConfigError, match=rf"cannot be shown by {name} .*; pip install 'acf\[live\]', or leave"):
        train(*RUN, root, live=Live((name,)))
    assert not (root / ".acf").exists()


def test_an_unknown_sink_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown sink for live curves 'dvclve'; known: dvclive, tensorboard"):
        require_sinks(["dvclve"])


def test_options_say_it_again() -> None:
    live = Live.of("tensorboard, dvclive,,tensorboard", Path("/elsewhere"))
    assert live.sinks == ("tensorboard", "dvclive")
    assert live.options == ["--live", "tensorboard,dvclive", "--live-folder", "/elsewhere"]
    assert Live.of("", Path("x")).sinks == ()
