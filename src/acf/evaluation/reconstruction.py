"""How exactly the inverse undoes the flow."""

import torch
from torch import Tensor

from acf.flows.flow import Flow


@torch.no_grad()
def largest_reconstruction_error(flow: Flow, x: Tensor, batch_size: int) -> float:
    """Largest |x - f^-1(f(x))| over all values of all images x (N, C, H, W) in [0, 1).

    Raises:
        NotContractiveError: a block has no proof of contraction.
        ConvergenceError: a fixed-point iteration did not reach its accuracy.
    """
    worst = 0.0
    for part in x.split(batch_size):
        part = part.to(next(flow.parameters()).device)
        worst = max(worst, float((part - flow.inverse(flow.transform(part))).abs().max()))
    return worst
