"""How far the forward map's iterations leave log_prob off."""

import copy

import torch
from torch import Tensor

from acf.flows.flow import Flow
from acf.flows.monotone import EVALUATION_RESIDUAL, SQRT2, MonotoneBlock


def log_prob_error(flow: Flow, x: Tensor, condition: Tensor | None = None) -> Tensor:
    """Return how far off `flow.log_prob(x)` may be in evaluation mode (B,), in nats, to first order.

    A monotone block computes value and log-determinant of an input that is moved by at most |r| / sqrt(2), where r is
    the residual its iteration ended with (docs/mathematics.md, Proposition 15c). So the error of log p is at most
    sum_i |d log p / dx_i| |r_i| / sqrt(2) over the inputs x_i of these blocks, with l2 norms, up to terms of second
    order in r. The derivative is that of one draw of the estimate with few terms, so it is an estimate. A flow of
    residual blocks has no such error: it is 0.

    Args:
        flow: left as it is.
        x: as for `Flow.log_prob`, and so is the condition.
        condition: c, of a conditional flow.
    """
    flow = copy.deepcopy(flow)
    shifts: dict[MonotoneBlock, tuple[Tensor, Tensor]] = {}

    def shift_input(block: MonotoneBlock, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        values, *others = arguments
        shift = torch.zeros_like(values, requires_grad=True)
        shifts[block] = shift, block.centre(values.detach()).residual / SQRT2
        return values + shift, *others

    for block in flow.contractive_blocks().values():
        if isinstance(block, MonotoneBlock):
            block.register_forward_pre_hook(shift_input)
            # Training mode has gradients at the memory of one evaluation; here it iterates as evaluation mode does.
            tight = {"solve_residual": EVALUATION_RESIDUAL[x.dtype], "memory_efficient": True, "neumann_gradient": True}
            block.training_log_det = block.training_log_det.model_copy(update=tight)
    error = x.new_zeros(len(x))
    with torch.enable_grad():
        log_prob = flow.train().log_prob(x, condition)
        if shifts:
            gradients = torch.autograd.grad(log_prob.sum(), [shift for shift, _ in shifts.values()])
            for gradient, (_, moved) in zip(gradients, shifts.values(), strict=True):
                error = error + gradient.flatten(1).norm(dim=1) * moved
    return error.detach()
