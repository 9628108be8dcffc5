"""The averaged flow of the best validation, kept while training goes on."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from acf.flows.build import build
from acf.flows.flow import Flow
from acf.settings.config import ModelConfig
from acf.training.average import MovingAverage


@dataclass(frozen=True)
class Best:
    """The averaged flow after the step with the lowest validation loss so far; of equal ones, the first.

    Attributes:
        step: number of steps done.
        loss: of the validation, that of the task.
        state: parameters and buffers of the flow, on the host.
    """

    step: int
    loss: float
    state: dict[str, Tensor]

    @classmethod
    def of(cls, average: MovingAverage, step: int, loss: float) -> Self:
        """Return a copy of the present average."""
        tensors = average.module.state_dict()
        return cls(step, loss, {key: tensor.to("cpu", copy=True) for key, tensor in tensors.items()})

    def flow(self, config: ModelConfig, device: torch.device) -> Flow:
        """Return the flow, built anew from its configuration."""
        flow = build(config).to(device)
        flow.load_state_dict(self.state)
        return flow
