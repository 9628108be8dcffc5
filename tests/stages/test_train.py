"""The stage `train` with real files: reproducible, resumable, stopping with the reason."""

import csv
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import acf
from acf.errors import ConfigError, DataError, NotContractiveError, TrainingError
from acf.flows.storage import read_record
from acf.lipschitz import L2SelfAttention
from acf.registry import ATTENTIONS
from acf.settings.config import ModelConfig, TrainingConfig
from acf.stages.train import train
from acf.training.batches import Batches, training_input
from acf.training.checkpoint import read_checkpoint
from acf.training.trainer import Trainer

Study = Callable[..., Path]
CPU = torch.device("cpu")


def weights(root: Path, variant: str = "resflow") -> dict[str, Tensor]:
    return load_file(root / "models/digits" / variant / "seed0/model.safetensors")


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def trainer(folder: Path, model: dict[str, object] | None = None, **training: object) -> Trainer:
    config = {"blocks": [2], "idim": 8, "fc_blocks": 1, "fc_width": 8, "squeeze_first": True, "levels": 17}
    settings = {"steps": 8, "batch_size": 8, "warmup_steps": 2, "validation_images": 10, "validate_every": 4}
    images = torch.randint(0, 17, (60, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Trainer(
        ModelConfig.model_validate({"shape": (1, 8, 8)} | config | (model or {})),
        TrainingConfig.model_validate(settings | training),
        Batches(images, 10, seed=0),
        0,
        CPU,
        folder,
        "test",
    )


@pytest.mark.parametrize("variant", ["resflow", "acf-l2", "acf-dot"])
def test_training_writes_a_certified_model_and_its_history(study: Study, variant: str) -> None:
    root = study()
    train("digits", variant, 0, "cpu", root)
    folder = root / "models/digits" / variant / "seed0"
    flow = acf.load(folder)
    assert acf.certify(flow).worst < 1
    record = read_record(folder)
    assert record["train_steps"] == 12
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
    assert same(before, weights(root))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_interrupted_and_resumed_equals_uninterrupted(study: Study, number: signal.Signals) -> None:
    long = {"steps": 60, "validate_every": 5}
    whole, cut = study("whole", training=long), study("cut", training=long)
    train("digits", "acf-dot", 0, "cpu", whole)
    command = [sys.executable, "-m", "acf.cli", "train", "--experiment", "digits", "--variant", "acf-dot"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "ACF_DEVICE": "cpu"}
    with subprocess.Popen(
        command, cwd=cut, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "step 15/60" in line:
                process.send_signal(number)
                break
        _, errors = process.communicate()
    assert process.returncode != 0
    if number == signal.SIGTERM:
        assert "stopped by SIGTERM" in errors
        assert "Run the same command again" in errors
        assert "Traceback" not in errors
    assert not (cut / "models").exists()
    again = subprocess.run(command, cwd=cut, env=environment, capture_output=True, text=True, check=True)
    assert "resumed after step" in again.stdout
    assert same(weights(whole, "acf-dot"), weights(cut, "acf-dot"))


def test_validation_does_not_change_training(tmp_path: Path) -> None:
    often, never = trainer(tmp_path / "a", validate_every=1), trainer(tmp_path / "b", validate_every=8)
    a, b = often.run()[0].state_dict(), never.run()[0].state_dict()
    close = [
        torch.equal(a[key], b[key]) for key in a if "left" not in key and "right" not in key and "slack" not in key
    ]
    assert all(close)


def test_validation_takes_place_when_asked_whatever_the_rows(tmp_path: Path) -> None:
    run = trainer(tmp_path, steps=22, validate_every=21)
    run.run()
    assert [row["step"] for row in run.history.rows] == [*range(2, 21, 2), 21, 22]
    assert [row["step"] for row in run.history.rows if row["validation_bits_per_dim"]] == [21, 22]


def test_a_signal_stops_training_after_the_step_and_handlers_come_back(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    original = run._gradient_step

    def interrupted(rate: float) -> None:
        if run.step == 2:
            signal.raise_signal(signal.SIGINT)
        original(rate)

    run._gradient_step = interrupted  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"^test: stopped by SIGINT after step 3\. Run the same command again"):
        run.run()
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    resumed, whole = trainer(tmp_path), trainer(tmp_path / "whole")
    assert resumed.step == 3
    assert resumed.seconds == run.seconds
    assert same(resumed.run()[0].state_dict(), whole.run()[0].state_dict())
    assert same(run.run()[0].state_dict(), whole.average.module.state_dict())
    without_seconds = [
        [{**row, "seconds": None} for row in history.rows] for history in (resumed.history, whole.history)
    ]
    assert without_seconds[0] == without_seconds[1]


def test_accumulation_equals_one_large_batch(tmp_path: Path) -> None:
    """Without noise in the log-determinant (dense Jacobian would be exact) the gradients agree in the mean."""
    accumulated = trainer(tmp_path / "a", batch_size=4, accumulate=3, steps=1)
    whole = trainer(tmp_path / "b", batch_size=12, accumulate=1, steps=1)
    for t in (accumulated, whole):
        t.run()
    assert accumulated.history.rows[-1]["images"] == whole.history.rows[-1]["images"] == 12
    assert torch.equal(accumulated.batches.batch_at(0, 12), whole.batches.batch_at(0, 12))


def test_the_average_is_exponential(tmp_path: Path) -> None:
    run = trainer(tmp_path, ema_decay=0.5, steps=4)
    seen = []
    original = run.average.update_parameters

    def update(flow: nn.Module) -> None:
        seen.append([p.detach().clone() for p in flow.parameters()])
        original(flow)

    run.average.update_parameters = update  # type: ignore[method-assign]
    run.run()
    expected = seen[0]
    for step in seen[1:]:
        expected = [0.5 * e + 0.5 * p for e, p in zip(expected, step, strict=True)]
    for e, p in zip(expected, run.average.parameters(), strict=True):
        torch.testing.assert_close(p, e)


def test_flips_are_drawn_per_image() -> None:
    images = torch.zeros(400, 1, 8, 8, dtype=torch.uint8)
    images[..., 0] = 16
    x = training_input(images, levels=17, horizontal_flips=True)
    flipped = x[:, 0, 0, 7] > 0.5
    assert torch.equal(flipped, x[:, 0, 0, 0] < 0.5)
    assert 140 < int(flipped.sum()) < 260


def test_training_lowers_bits_per_dim(study: Study) -> None:
    root = study(
        model={"idim": 24, "blocks": [3]},
        training={"steps": 200, "validate_every": 10, "learning_rate": 1e-2, "batch_size": 32},
    )
    train("digits", "resflow", 0, "cpu", root)
    with (root / "models/digits/resflow/seed0/history.csv").open() as file:
        values = [float(row["train_bits_per_dim"]) for row in csv.DictReader(file)]
    assert sum(values[-20:]) / 20 < values[0] - 0.25


def test_values_that_are_not_finite_stop_training_and_name_the_layer(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    name, layer = next((n, m) for n, m in run.flow.named_modules() if n.endswith("bijections.2.branch.2"))
    original = run._gradient_step

    def break_later(rate: float) -> None:
        if run.step == 6:
            with torch.no_grad():
                layer.bias.fill_(float("nan"))
        original(rate)

    run._gradient_step = break_later  # type: ignore[method-assign]
    with pytest.raises(TrainingError) as caught:
        run.run()
    message = str(caught.value)
    assert "step 6" in message
    assert name in message
    assert "last good checkpoint (step 4)" in message
    kept = read_checkpoint(tmp_path)
    assert kept is not None
    assert kept["step"] == 4
    assert all(torch.isfinite(t).all() for t in kept["flow"].values())


class PublishedForm(L2SelfAttention):
    """x + gamma A(x), as the published code has it, with its honest bound."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 2 * super().forward(x)

    def lipschitz_bound(self, n_tokens: int) -> float:
        return 1 + 2 * super().lipschitz_bound(n_tokens)


def test_a_block_that_is_not_contractive_stops_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATTENTIONS, "published", f"{__name__}:PublishedForm")
    monkeypatch.setitem(sys.modules, __name__, sys.modules[PublishedForm.__module__])
    run = trainer(tmp_path, model={"attention": {"kind": "published", "heads": 2, "share": 0.9, "join": "convex"}})
    with pytest.raises(NotContractiveError) as caught:
        run.run()
    assert "scale 1, block 1" in str(caught.value)
    assert "ConvexShare" in str(caught.value)


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
