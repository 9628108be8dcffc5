"""Data order, learning rate, history, checkpoints."""

import math
from pathlib import Path

import pytest
import torch

from acf.settings.config import TrainingConfig
from acf.training.batches import Batches
from acf.training.checkpoint import NAME, read_checkpoint, write_checkpoint
from acf.training.history import COLUMNS, History
from acf.training.optimiser import learning_rate


def numbered(count: int) -> torch.Tensor:
    return torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1)


def test_every_epoch_sees_each_image_once_and_validation_none() -> None:
    batches = Batches(numbered(50), held_out=10, seed=3)
    held_out = set(batches.validation.flatten().tolist())
    assert len(held_out) == 10
    epochs = [batches.take(40 * e, 40).flatten().tolist() for e in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(set(range(50)) - held_out)
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_stream_is_a_function_of_seed_and_position() -> None:
    first, second = Batches(numbered(50), 10, seed=3), Batches(numbered(50), 10, seed=3)
    whole = torch.cat([first.take(7 * i, 7) for i in range(20)])
    assert torch.equal(second.take(63, 49), whole[63:112])
    other = Batches(numbered(50), 10, seed=4)
    assert torch.equal(other.validation, first.validation)
    assert not torch.equal(other.take(0, 40), first.take(0, 40))


def test_a_batch_may_be_larger_than_the_data() -> None:
    batches = Batches(numbered(10), 2, seed=0)
    counts = torch.bincount(batches.take(0, 80).flatten().long(), minlength=10)
    assert sorted(counts.tolist()) == [0, 0] + [10] * 8


def test_learning_rate() -> None:
    config = TrainingConfig(steps=100, warmup_steps=10, learning_rate=1.0, schedule="cosine")
    assert learning_rate(0, config) == pytest.approx(0.1)
    assert learning_rate(9, config) == learning_rate(10, config) == 1.0
    assert learning_rate(55, config) == pytest.approx(0.5)
    assert learning_rate(99, config) < 1e-3
    constant = config.model_copy(update={"schedule": "constant"})
    assert learning_rate(99, constant) == 1.0


def test_history_rows_are_means_since_the_last_row() -> None:
    history = History()
    for value in (1.0, 2.0, 6.0):
        history.observe(value, 2 * value)
    row = history.row(3, 1.5, 24, 1e-3)
    assert (row["train_bits_per_dim"], row["gradient_norm"]) == (3.0, 6.0)
    history.observe(5.0, 1.0)
    assert history.row(4, 2.0, 32, 1e-3)["train_bits_per_dim"] == 5.0
    lines = history.as_csv().splitlines()
    assert lines[0].split(",") == list(COLUMNS)
    assert len(lines) == 3


def test_checkpoint_round_trip_and_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_checkpoint(tmp_path) is None
    write_checkpoint(tmp_path, {"step": 3, "weights": torch.arange(5.0), "rows": [{"a": math.pi}]})
    content = read_checkpoint(tmp_path)
    assert content is not None
    assert content["step"] == 3
    assert torch.equal(content["weights"], torch.arange(5.0))
    path = tmp_path / NAME
    path.write_bytes(path.read_bytes()[:-200])
    assert read_checkpoint(tmp_path) is None
    assert "damaged" in capsys.readouterr().out
