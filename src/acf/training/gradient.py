"""The gradient of one step of training, over all its batches and all processes."""

import torch
from torch import Tensor

from acf.flows.dequantise import bits_per_dim_of
from acf.flows.flow import Flow
from acf.runs.ranks import Ranks
from acf.settings.config import TrainingConfig
from acf.training.batches import training_input
from acf.training.reader import BatchReader


class StepGradient:
    """Computes the gradient of the mean bits/dim over the `accumulate` batches of a step.

    Each process computes its share of every batch, and gradients are added up once a step.

    Args:
        flow: in training mode.
        config: sizes of batches, and whether images may be mirrored.
        reader: of the images.
        ranks: the processes that share the batches.

    Attributes:
        images: number of images in a step, of all processes together.
    """

    def __init__(self, flow: Flow, config: TrainingConfig, reader: BatchReader, ranks: Ranks) -> None:
        self._flow, self._config, self._reader, self._ranks = flow, config, reader, ranks
        self._share = ranks.share(config.batch_size)
        self.images = config.batch_size * config.accumulate

    def compute(self, step: int) -> tuple[Tensor, list[Tensor]]:
        """Set the gradient of all parameters to that of step number `step`.

        Returns:
            The mean bits/dim, a scalar on the device, and this process's share of each batch, (B, C, H, W) in [0, 1).

        Raises:
            InputError: a value of the images is not below the number of grey levels.
            LostRankError: another process has ended.
        """
        self._flow.zero_grad(set_to_none=True)
        total = torch.zeros((), device=next(self._flow.parameters()).device)
        batches = []
        for index in range(self._config.accumulate):
            x = self._input(step, index)
            batches.append(x)
            log_prob = self._flow.log_prob_unchecked(x, share=self._share)
            loss = bits_per_dim_of(log_prob, self._flow.config).sum() / self.images
            loss.backward()
            total += loss.detach()
        if self._ranks.number > 1:
            self._add_up(total)
        return total, batches

    def _input(self, step: int, index: int) -> Tensor:
        config = self._config
        position = (step * config.accumulate + index) * config.batch_size
        images = self._reader.read(position, config.batch_size)
        return training_input(images, self._flow.config.grey_levels, config.horizontal_flips, self._share)

    def _add_up(self, loss: Tensor) -> None:
        parameters = [p for p in self._flow.parameters() if p.requires_grad]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self._ranks.add_up([loss, *(p.grad for p in parameters if p.grad is not None)])
