"""`acf data`, and the progress of conversions."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from acf.cli import app
from acf.data.download.progress import shown
from acf.errors import DataError
from acf.registry import DATASETS
from acf.stages.prepare import prepare
from tests.data.sources import flip, written


def test_the_list_follows_what_is_there(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)

    def states() -> dict[str, str]:
        result = CliRunner().invoke(app, ["data", "list", "--json"])
        assert result.exit_code == 0
        return {entry["name"]: entry["state"] for entry in json.loads(result.output)}

    assert states() == {name: "missing" for name in DATASETS} | {
        name: "manual" for name in ("imagenet32", "imagenet64", "celebahq64")
    }
    written("mnist", project)
    prepare("mnist")
    (project / "data/.downloads/svhn").mkdir(parents=True)
    (project / "data/.downloads/svhn/train_32x32.mat.part").write_bytes(b"half")
    assert (states()["mnist"], states()["svhn"]) == ("ready", "partial")
    (project / "data/mnist/manifest.json").unlink()
    assert states()["mnist"] == "partial"
    table = CliRunner().invoke(app, ["data", "list"]).output
    for name in DATASETS:
        assert name in table


def test_verify_recomputes_the_hashes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    written("mnist", project)
    prepare("mnist")
    result = CliRunner().invoke(app, ["data", "verify", "mnist"])
    assert (result.exit_code, result.output) == (0, "mnist: content verified, 6 train, 3 test images\n")
    flip(project / "data/mnist/train.pth")
    with pytest.raises(DataError, match=r"train\.pth is damaged: SHA-256"):
        CliRunner().invoke(app, ["data", "verify", "mnist"], catch_exceptions=False)


def test_progress_is_shown_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def count() -> str:
        assert sum(len(piece) for piece in shown(iter([np.zeros((5, 1)), np.zeros((2, 1))]), "reading", 7)) == 7
        return capsys.readouterr().err

    assert count() == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert count() == ""  # colours in a file are wished for, moving bars are not
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert "reading" in count()
