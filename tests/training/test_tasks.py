"""Tasks: their losses and gradients, labels that follow their images, and trainings that go on to the bit."""

import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from acf.errors import ConfigError, InputError, StoppedError
from acf.flows.classifying import ClassifyingFlow
from acf.registry import LABELLED_TASKS, TASKS
from acf.settings.config import ModelConfig, TrainingConfig
from acf.training.batches import Batches
from acf.training.history import COLUMNS
from acf.training.tasks.task import MEASURES, task_of
from acf.training.trainer import Trainer
from tests.training.trainers import CLASSES, CPU, SMALL, same, trainer

WEIGHT = 3.0
MONOTONE: dict[str, object] = {"block": "monotone", "training_log_det": {"solve_residual": 1e-6}}
HYBRID = {"kind": "hybrid", "likelihood_weight": WEIGHT}


def test_losses_have_their_scaling() -> None:
    """Of log p(x) and log p(y | x) in nats: lambda = w / D, up to a constant, in bits."""
    d, levels = 64, 17
    log_prob, label = torch.tensor([-40.0, -200.0]), torch.tensor([-0.3, -2.0])
    measured = {
        "bits_per_dim": -log_prob / (d * math.log(2)) + math.log2(levels),
        "cross_entropy": -label,
        "accuracy": torch.tensor([1.0, 0.0]),
    }
    objective = (WEIGHT / d) * log_prob + label
    for kind, expected in {
        "density": measured["bits_per_dim"],
        "classification": -label / math.log(2),
        "hybrid": -objective / math.log(2) + WEIGHT * math.log2(levels),
    }.items():
        task = task_of(TrainingConfig.model_validate({"task": {"kind": kind, "likelihood_weight": WEIGHT}}))
        assert set(task.measures) <= MEASURES.keys()
        loss = task.loss(measured)
        torch.testing.assert_close(loss, expected)
        means = {name: values.mean() for name, values in measured.items()}
        torch.testing.assert_close(task.loss(means), loss.mean())


def test_every_measure_has_its_columns() -> None:
    columns = {f"{when}_{name}" for name in MEASURES for when in ("train", "validation")}
    assert columns <= set(COLUMNS)
    assert {kind for kind in TASKS if "accuracy" in _measures(kind)} == set(LABELLED_TASKS)


def _measures(kind: str) -> tuple[str, ...]:
    return task_of(TrainingConfig.model_validate({"task": {"kind": kind}})).measures


@pytest.mark.parametrize(
    ("kind", "model"), [*((kind, {}) for kind in LABELLED_TASKS), *((kind, MONOTONE) for kind in LABELLED_TASKS)]
)
def test_the_gradient_of_a_step_is_that_of_its_loss(tmp_path: Path, kind: str, model: dict[str, object]) -> None:
    """Two batches a step, computed one by one from the images and labels at their positions with the same noise."""
    run = trainer(tmp_path, model, task={"kind": kind, "likelihood_weight": WEIGHT}, batch_size=6, accumulate=2)
    flow, batches = run.flow.train(), run.batches
    assert isinstance(flow, ClassifyingFlow)
    run._gradient.compute(0)  # the first batch sets scales
    torch.manual_seed(5)
    measured, inputs = run._gradient.compute(3)
    found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in flow.parameters()]
    labels = [batches.labels_at(position, 6) for position in (36, 42)]
    images = [batches.batch_at(position, 6) for position in (36, 42)]
    for x, k in zip(inputs, images, strict=True):
        assert torch.equal((x * 17).floor().to(torch.uint8), k)
    flow.zero_grad()
    torch.manual_seed(5)
    losses = []
    for x, y in zip(inputs, labels, strict=True):
        assert y is not None
        torch.rand(x.shape)  # what dequantisation draws
        loss = cross_entropy(flow.classify(x), y) / math.log(2)
        if kind == "hybrid":
            nats = flow.log_prob(x)
            loss = loss - WEIGHT * nats.mean() / (64 * math.log(2)) + WEIGHT * math.log2(17)
        (loss / 2).backward()
        losses.append(loss.detach())
    task = task_of(run.config)
    assert float(task.loss(measured)) == pytest.approx(float(sum(losses)) / 2, rel=1e-5)
    right = [flow.classify(x).argmax(1) == y for x, y in zip(inputs, labels, strict=True)]
    assert float(measured["accuracy"]) == pytest.approx(float(torch.cat(right).float().mean()))
    for gradient, parameter in zip(found, flow.parameters(), strict=True):
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


def test_labels_follow_their_images() -> None:
    images = torch.arange(50, dtype=torch.uint8).view(-1, 1, 1, 1)
    plain, labelled = Batches(images, 10, seed=3), Batches(images, 10, 3, [int(i) % 7 for i in range(50)])
    for position, size in [(0, 8), (33, 20), (400, 90)]:
        chosen, labels = labelled.batch_at(position, size), labelled.labels_at(position, size)
        assert torch.equal(chosen, plain.batch_at(position, size))
        assert labels is not None
        assert torch.equal(labels, chosen.flatten().long() % 7)
    assert plain.labels_at(0, 8) is plain.validation_labels is plain.label_range is None
    assert labelled.validation_labels is not None
    assert torch.equal(labelled.validation_labels, labelled.validation.flatten().long() % 7)
    assert labelled.label_range == (0, 6)
    with pytest.raises(InputError, match="49"):
        Batches(images, 10, 3, [0] * 49)


@pytest.mark.parametrize("kind", LABELLED_TASKS)
def test_an_interrupted_training_goes_on_to_the_bit(tmp_path: Path, kind: str) -> None:
    task: dict[str, Any] = {"task": {"kind": kind}, "keep": "best"}
    whole = trainer(tmp_path / "whole", SMALL, **task)
    expected = whole.run()[0].state_dict()
    cut = trainer(tmp_path / "cut", SMALL, **task)
    original = cut._gradient_step

    def step(rate: float) -> None:
        original(rate)
        if cut.step == 5:
            signal.raise_signal(signal.SIGTERM)

    cut._gradient_step = step  # type: ignore[method-assign]
    with pytest.raises(StoppedError):
        cut.run()
    resumed = trainer(tmp_path / "cut", SMALL, **task)
    assert resumed.step == 6
    assert same(resumed.run()[0].state_dict(), expected)
    assert [{**row, "seconds": 0} for row in resumed.history.rows] == [
        {**row, "seconds": 0} for row in whole.history.rows
    ]
    row = whole.history.rows[-1]
    assert 0 <= row["validation_accuracy"] <= 1
    assert (row["train_bits_per_dim"] == row["validation_bits_per_dim"] == "") == (kind == "classification")
    losses = {row["step"]: WEIGHTED[kind](row) for row in whole.history.rows if row["validation_cross_entropy"] != ""}
    assert whole.kept_step == min(losses, key=lambda number: losses[number])
    heads = [key for key in expected if key.startswith("heads.")]
    assert not any(
        torch.equal(whole.flow.state_dict()[key], expected[key]) for key in heads if "initialised" not in key
    )


WEIGHTED = {
    "hybrid": lambda row: row["validation_bits_per_dim"] + row["validation_cross_entropy"] / math.log(2),
    "classification": lambda row: row["validation_cross_entropy"],
}


@pytest.mark.parametrize("shuffled", [False, True])
def test_labels_are_learnt_from_images_and_shuffled_ones_are_not(tmp_path: Path, shuffled: bool) -> None:
    """Images are bright above or below; accuracy on 300 images not seen, against 6 standard errors of chance."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (400,), generator=generator)
    images = torch.randint(0, 9, (400, 1, 4, 4), dtype=torch.uint8, generator=generator)
    images[labels == 1, :, :2] += 4
    images[labels == 0, :, 2:] += 4
    if shuffled:
        labels = labels[torch.randperm(400, generator=generator)]
    model = {"shape": (1, 4, 4), "levels": 17, "blocks": [1], "idim": 8, "fc_blocks": 0, "classes": 2, "head_width": 8}
    training = {"task": {"kind": "classification"}, "steps": 60, "batch_size": 32, "warmup_steps": 5, "ema_decay": 0.9}
    training |= {"learning_rate": 0.02, "validate_every": 60}
    run = Trainer(
        *(ModelConfig.model_validate(model), TrainingConfig.model_validate(training)),
        *(Batches(images, 300, 0, labels), 0, CPU, tmp_path, "test"),
    )
    run.run()
    accuracy = run.history.rows[-1]["validation_accuracy"]
    assert abs(accuracy - 0.5) < 0.17 if shuffled else accuracy > 0.9


def test_what_a_task_lacks_is_said(tmp_path: Path) -> None:
    model = {"shape": (1, 4, 4), "levels": 17, "blocks": [1], "idim": 8, "fc_blocks": 0}
    config = TrainingConfig.model_validate({"task": HYBRID})
    images = torch.zeros(20, 1, 4, 4, dtype=torch.uint8)

    def refused(labels: Tensor | None, classes: int | None, said: str) -> None:
        made = ModelConfig.model_validate({**model, "classes": classes})
        with pytest.raises(ConfigError, match=said):
            Trainer(made, config, Batches(images, 5, 0, labels), 0, CPU, tmp_path, "test")

    refused(torch.arange(20) % CLASSES, None, "hybrid needs classification heads")
    refused(None, CLASSES, "hybrid needs the labels")
    refused(torch.arange(20) % CLASSES, 2, "label 2 is none of the 2 classes")
