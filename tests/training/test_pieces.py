"""Data order, learning rate, history, clock."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from acf.settings.config import TrainingConfig
from acf.training.average import MovingAverage
from acf.training.batches import Batches
from acf.training.clock import Clock
from acf.training.history import COLUMNS, History
from acf.training.optimiser import learning_rate
from acf.training.random_state import seeded


def numbered(count: int) -> torch.Tensor:
    return torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1)


def test_every_epoch_sees_each_image_once_and_validation_none() -> None:
    batches = Batches(numbered(50), held_out=10, seed=3)
    held_out = set(batches.validation.flatten().tolist())
    assert len(held_out) == 10
    epochs = [batches.batch_at(40 * e, 40).flatten().tolist() for e in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(set(range(50)) - held_out)
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_stream_is_a_function_of_seed_and_position() -> None:
    first, second = Batches(numbered(50), 10, seed=3), Batches(numbered(50), 10, seed=3)
    whole = torch.cat([first.batch_at(7 * i, 7) for i in range(20)])
    assert torch.equal(second.batch_at(63, 49), whole[63:112])
    other = Batches(numbered(50), 10, seed=4)
    assert torch.equal(other.validation, first.validation)
    assert not torch.equal(other.batch_at(0, 40), first.batch_at(0, 40))


def test_a_batch_may_be_larger_than_the_data() -> None:
    batches = Batches(numbered(10), 2, seed=0)
    counts = torch.bincount(batches.batch_at(0, 80).flatten().long(), minlength=10)
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
        history.observe({"bits_per_dim": value}, 2 * value)
    history.end_row(3, 1.5, 24, 1e-3)
    assert (history.rows[0]["train_bits_per_dim"], history.rows[0]["gradient_norm"]) == (3.0, 6.0)
    history.observe({"bits_per_dim": 5.0}, 1.0)
    history = History.from_state_dict(history.state_dict())
    history.observe({"bits_per_dim": 6.0}, 1.0)
    history.end_row(5, 2.0, 40, 1e-3)
    assert history.rows[1]["train_bits_per_dim"] == 5.5
    history.add_validation({"bits_per_dim": (4.0, 0.5)})
    assert [row["validation_se"] for row in history.rows] == ["", 0.5]
    lines = history.as_csv().splitlines()
    assert lines[0].split(",") == list(COLUMNS)
    assert len(lines) == 3


def test_sums_on_the_device_give_the_same_rows() -> None:
    rows = []
    for kind in (float, torch.tensor):
        history = History()
        for value in (1.0, 2.0):
            history.observe({"bits_per_dim": kind(value)}, kind(3 * value))
        state = history.state_dict()
        assert state["sums"] == {"steps": 2, "gradient_norm": 9.0, "measured": {"bits_per_dim": 3.0}}
        history = History.from_state_dict(state)
        history.observe({"bits_per_dim": kind(6.0)}, kind(0.0))
        history.end_row(3, 1.5, 24, 1e-3)
        rows.append(history.rows)
    assert rows[0] == rows[1]
    assert type(rows[1][0]["train_bits_per_dim"]) is float


def test_the_average_of_a_model_is_torchs_own() -> None:
    """The same bits as torch's class, which copies buffers one by one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    ours, theirs = MovingAverage(model, 0.9), AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for _ in range(3):
        for tensor in model.state_dict().values():
            tensor.add_(1) if tensor.dtype == torch.int64 else tensor.add_(torch.randn(tensor.shape))
        ours.update_parameters(model)
        theirs.update_parameters(model)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())


def test_the_clock_leaves_validation_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    clock = Clock(seconds=10.0)
    now = 200.0
    clock.start()
    for _ in range(4):
        now += 0.5
        clock.count_step()
    clock.end_row()
    assert (clock.seconds, clock.steps_per_second) == (12.0, 2.0)
    now += 7.0
    clock.leave_out()
    now += 0.25
    clock.checkpoint_written()
    now += 0.75
    clock.count_step()
    clock.end_row()
    assert (clock.seconds, clock.steps_per_second, clock.seconds_since_checkpoint()) == (13.0, 1.0, 0.75)


def test_seeded_noise_leaves_the_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    for _ in range(2):
        with seeded(0, torch.device("cpu")):
            assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.rand(3), expected)
