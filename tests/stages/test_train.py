"""The stage `train` with real files: reproducible, resumable, stopping with the reason."""

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

import acf
from acf.errors import ConfigError, DataError, StoppedError
from acf.flows.record import read_record
from acf.stages.train import train
from acf.training.validation import validation_measures
from tests.training.trainers import same

Study = Callable[..., Path]


def weights(root: Path, variant: str = "resflow") -> dict[str, Tensor]:
    return load_file(root / "models/digits" / variant / "seed0/model.safetensors")


@pytest.mark.parametrize("variant", ["resflow", "acf-l2", "acf-dot"])
def test_training_writes_a_certified_model_and_its_history(study: Study, variant: str) -> None:
    root = study()
    train("digits", variant, 0, "cpu", root)
    folder = root / "models/digits" / variant / "seed0"
    flow = acf.load(folder)
    assert acf.certify(flow).worst < 1
    record = read_record(folder)
    assert record["train_steps"] == record["weights_step"] == 12
    assert record["train_seconds"] > 0
    assert record["variant"] == variant
    with (folder / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, 13))
    assert [row["step"] for row in rows if row["validation_bits_per_dim"]] == ["4", "8", "12"]
    assert all(0 < float(row["train_bits_per_dim"]) < 20 for row in rows)


def test_same_seed_same_bits_other_seed_other_model(study: Study) -> None:
    first, second = study("first"), study("second")
    train("digits", "acf-l2", 0, "cpu", first)
    train("digits", "acf-l2", 0, "cpu", second)
    assert same(weights(first, "acf-l2"), weights(second, "acf-l2"))
    text = (second / "params.yaml").read_text()
    (second / "params.yaml").write_text(text.replace("    - 0\n", "    - 0\n    - 1\n"))
    train("digits", "acf-l2", 1, "cpu", second)
    other = load_file(second / "models/digits/acf-l2/seed1/model.safetensors")
    assert not same(weights(first, "acf-l2"), other)


def test_a_finished_run_is_restored_without_a_step(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    root = study()
    train("digits", "resflow", 0, "cpu", root)
    before = weights(root)
    (root / "models/digits/resflow/seed0/model.safetensors").unlink()
    capsys.readouterr()
    train("digits", "resflow", 0, "cpu", root)
    out = capsys.readouterr().out
    assert "restored" in out
    assert "step" not in out
    (store,) = (root / ".acf/runs").iterdir()
    assert not list(store.glob("checkpoint*"))
    assert same(before, weights(root))


# tests/pipeline/test_kills.py has more moments for SIGKILL.
@pytest.mark.parametrize("number", [signal.SIGUSR1, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_interrupted_and_resumed_equals_uninterrupted(
    study: Study, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    long = {"steps": 30, "validate_every": 5}
    whole, cut = study("whole", training=long), study("cut", training=long)
    train("digits", "acf-dot", 0, "cpu", whole)
    command = [sys.executable, "-m", "acf.cli", "train", "--experiment", "digits", "--variant", "acf-dot"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "ACF_DEVICE": "cpu"}
    with subprocess.Popen(
        command, cwd=cut, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "step 10/30" in line:
                process.send_signal(number)
                break
        _, errors = process.communicate()
    if number == signal.SIGUSR1:
        assert process.returncode == 130
        assert errors.startswith("interrupted: train digits/acf-dot/seed0: stopped by SIGUSR1 after step ")
        assert errors.endswith(". Run the same command again to go on\n")
        assert errors.count("\n") == 1
    assert not (cut / "models").exists()
    (store,) = (cut / ".acf/runs").iterdir()
    assert "checkpoint.pt" in {path.name for path in store.iterdir()}
    (store / ".checkpoint.pt.tmp").write_bytes(b"half a checkpoint")
    (store / ".checkpoint.pt.4711.tmp").write_bytes(b"half a checkpoint")
    capsys.readouterr()
    train("digits", "acf-dot", 0, "cpu", cut)
    assert "resumed after step" in capsys.readouterr().out
    assert same(weights(whole, "acf-dot"), weights(cut, "acf-dot"))
    assert {path.name for path in store.iterdir()} == {"done.json", "lock", "outputs", "recipe.json"}
    assert sorted(path.name for path in (store / "outputs").iterdir()) == sorted(
        path.name for path in (cut / "models/digits/acf-dot/seed0").iterdir()
    )


def test_going_on_with_other_threads_is_said(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = study()

    def stopping(*arguments: Any) -> dict[str, Tensor]:
        os.kill(os.getpid(), signal.SIGUSR1)
        return validation_measures(*arguments)

    monkeypatch.setattr("acf.training.trainer.validation_measures", stopping)
    said = "this start has 1 thread in 1 process, the one before the interruption had 2 threads in 1 process"
    for other in (False, True):
        if other:
            (store,) = (root / ".acf/runs").iterdir()
            (store / "threads.txt").write_text("2 threads in 1 process")
        with pytest.raises(StoppedError):
            train("digits", "resflow", 0, "cpu", root)
        assert (said in capsys.readouterr().out) == other


def test_training_lowers_bits_per_dim(study: Study) -> None:
    root = study(
        model={"idim": 24, "blocks": [3]},
        training={"steps": 200, "validate_every": 200, "learning_rate": 1e-2, "batch_size": 32},
    )
    train("digits", "resflow", 0, "cpu", root)
    with (root / "models/digits/resflow/seed0/history.csv").open() as file:
        values = [float(row["train_bits_per_dim"]) for row in csv.DictReader(file)]
    assert sum(values[-20:]) / 20 < values[0] - 0.25


def test_settings_and_data_that_cannot_work(study: Study) -> None:
    root = study(training={"validation_images": 1500})
    with pytest.raises(ConfigError, match="leaves nothing of the 1500"):
        train("digits", "resflow", 0, "cpu", root)
    with pytest.raises(ConfigError, match="device 'tpu'"):
        train("digits", "acf-l2", 0, "tpu", study("device"))
    empty = study("empty")
    (empty / "data/digits/train.pth").unlink()
    with pytest.raises(DataError, match=r"train\.pth.*acf prepare --dataset digits"):
        train("digits", "resflow", 0, "cpu", empty)
    odd = study("odd", model={"branch": "dense", "activation": "clipswish", "dense": {"growth": 5}})
    with pytest.raises(ConfigError, match=r"dense\.growth \(5\) must be a multiple of 2"):
        train("digits", "resflow", 0, "cpu", odd)
