"""The exponential moving average of the weights, which is the model that training returns."""

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from acf.flows.certificate import Certificate
from acf.flows.flow import Flow, tighten


def build_average(flow: Flow, decay: float) -> AveragedModel:
    """Return a copy of `flow` whose `update_parameters` takes parameters to decay * average + (1 - decay) * flow.

    Its first update copies the parameters; every update copies the buffers, norms among them.
    """
    return AveragedModel(flow, multi_avg_fn=get_ema_multi_avg_fn(decay))


def certified_average(average: AveragedModel) -> tuple[Flow, Certificate]:
    """Return the averaged flow, in evaluation mode and tightened in place, with its certificate.

    The next `update_parameters` undoes the tightening, as it is in buffers only.

    Raises:
        NotContractiveError: a block cannot be proven contractive; names the layer.
    """
    flow: Flow = average.module  # type: ignore[assignment]
    certificate = tighten(flow)
    certificate.require()
    return flow.eval(), certificate
