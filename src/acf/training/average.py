"""The exponential moving average of the weights, which is the model that training returns."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from typing_extensions import override

from acf.flows.certificate import Certificate
from acf.flows.flow import Flow, tighten


class MovingAverage(AveragedModel):
    """A copy of a model whose parameters move to decay * average + (1 - decay) * model with every update.

    The first update copies the parameters; every update copies the buffers, norms among them. The work is done by a few
    operations over all tensors, where torch's own class takes three for each buffer.

    Args:
        model: copied.
        decay: in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model)
        self.n_averaged = torch.tensor(0, device="cpu")  # asked in every update
        self.decay = decay

    @override
    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        average, new = tuple(self.module.parameters()), tuple(model.parameters())
        if self.n_averaged:
            torch._foreach_lerp_(average, new, 1 - self.decay)
        else:
            torch._foreach_copy_(average, new)
        by_type: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        for old, buffer in zip(self.module.buffers(), model.buffers(), strict=True):
            pair = by_type.setdefault(buffer.dtype, ([], []))
            pair[0].append(old)
            pair[1].append(buffer)
        for copies, buffers in by_type.values():
            torch._foreach_copy_(copies, buffers)
        self.n_averaged += 1


def certified_average(average: MovingAverage) -> tuple[Flow, Certificate]:
    """Return the averaged flow, in evaluation mode and tightened in place, with its certificate.

    The next `update_parameters` undoes the tightening, as it is in buffers only.

    Raises:
        NotContractiveError: a block cannot be proven contractive; names the layer.
    """
    return certified(average.module)  # type: ignore[arg-type]


def certified(flow: Flow) -> tuple[Flow, Certificate]:
    """Return `flow`, in evaluation mode and tightened in place (buffers only), with its certificate.

    Raises:
        NotContractiveError: a block cannot be proven contractive; names the layer.
    """
    certificate = tighten(flow)
    certificate.require()
    return flow.eval(), certificate
