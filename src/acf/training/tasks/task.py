"""The interface of all tasks, and what they can measure."""

from collections.abc import Mapping
from typing import ClassVar, Protocol

from torch import Tensor

from acf.errors import ConfigError
from acf.flows.flow import Flow
from acf.registry import TASKS, resolve
from acf.runs.ranks import BatchShare
from acf.settings.config import ModelConfig, TrainingConfig
from acf.training.batches import Batches

MEASURES = {"bits_per_dim": "bits/dim", "cross_entropy": "nats/label", "accuracy": "accuracy"}
"""What tasks measure of an image, and its unit: -log2 p(x) / D + log2(levels), -log p(y | x), and whether the most
probable class is y, 1 or 0."""


class Task(Protocol):
    """What is measured of every image of a batch, and the loss that is made of the means."""

    measures: ClassVar[tuple[str, ...]]
    """What is measured, keys of `MEASURES`."""

    def __init__(self, config: TrainingConfig) -> None:
        """Take the weights of the loss from the settings."""

    def measure(self, flow: Flow, x: Tensor, labels: Tensor | None, share: BatchShare | None) -> dict[str, Tensor]:
        """Return each of `measures` by image, (B,).

        Args:
            flow: in training or in evaluation mode.
            x: images (B, C, H, W) in [0, 1), known to be pixels.
            labels: the class (B,) of each, int64; None where the task reads no labels.
            share: which rows x has of a batch that several processes share.
        """

    def loss(self, measured: Mapping[str, Tensor]) -> Tensor:
        """Return the loss, which is linear in what was measured: of means over images it is the mean loss."""


def task_of(config: TrainingConfig) -> Task:
    """Return the task that the settings name."""
    task: Task = resolve(TASKS, config.task.kind, "task")(config)
    return task


def task_for(model: ModelConfig, config: TrainingConfig, batches: Batches) -> Task:
    """Return the task that the settings name, once it is known that it has the heads and labels that it needs.

    Raises:
        ConfigError: the flow has no heads, the images have no labels, or a label is no class of the heads.
    """
    task = config.task.kind
    if not config.task.reads_labels:
        return task_of(config)
    if model.classes is None:
        raise ConfigError(f"the task {task} needs classification heads, for which `classes` of the model is not set")
    if batches.label_range is None:
        raise ConfigError(f"the task {task} needs the labels of the images")
    low, high = batches.label_range
    if low < 0 or high >= model.classes:
        wrong = low if low < 0 else high
        raise ConfigError(f"label {wrong} is none of the {model.classes} classes, 0 to {model.classes - 1}")
    return task_of(config)
