"""The gradient of one step of training, over all its batches and all processes."""

from collections.abc import Iterable

import torch
from torch import Tensor

from acf.flows.flow import Flow
from acf.runs.ranks import Ranks
from acf.settings.config import TrainingConfig
from acf.training.batches import training_input
from acf.training.reader import BatchReader
from acf.training.tasks.task import Task


class StepGradient:
    """Computes the gradient of a task's mean loss over the `accumulate` batches of a step.

    Each process computes its share of every batch, and gradients are added up once a step.

    Args:
        flow: in training mode.
        task: what it is trained for.
        config: sizes of batches, and whether images may be mirrored.
        reader: of the images.
        ranks: the processes that share the batches.

    Attributes:
        images: number of images in a step, of all processes together.
    """

    def __init__(self, flow: Flow, task: Task, config: TrainingConfig, reader: BatchReader, ranks: Ranks) -> None:
        self._flow, self._task, self._config, self._reader, self._ranks = flow, task, config, reader, ranks
        self._share = ranks.share(config.batch_size)
        self.images = config.batch_size * config.accumulate

    def compute(self, step: int) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Set the gradient of all parameters to that of step number `step`.

        Returns:
            The means of what the task measures, scalars on the device, and this process's share of each batch,
            (B, C, H, W) in [0, 1).

        Raises:
            InputError: a value of the images is not below the number of grey levels.
            LostRankError: another process has ended.
        """
        self._flow.zero_grad(set_to_none=True)
        device = next(self._flow.parameters()).device
        totals = {name: torch.zeros((), device=device) for name in self._task.measures}
        batches = []
        for index in range(self._config.accumulate):
            x, labels = self._input(step, index)
            batches.append(x)
            measured = self._task.measure(self._flow, x, labels, self._share)
            means = {name: values.sum() / self.images for name, values in measured.items()}
            self._task.loss(means).backward()
            for name, mean in means.items():
                totals[name] += mean.detach()
        if self._ranks.number > 1:
            self._add_up(totals.values())
        return totals, batches

    def _input(self, step: int, index: int) -> tuple[Tensor, Tensor | None]:
        config = self._config
        position = (step * config.accumulate + index) * config.batch_size
        images, labels = self._reader.read(position, config.batch_size)
        return training_input(images, self._flow.config.levels, config.horizontal_flips, self._share), labels

    def _add_up(self, totals: Iterable[Tensor]) -> None:
        parameters = [p for p in self._flow.parameters() if p.requires_grad]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._ranks.add_up([*totals, *(p.grad for p in parameters if p.grad is not None)])
