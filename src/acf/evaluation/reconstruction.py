"""How exactly the inverse undoes the flow."""

from collections.abc import Iterable

import torch
from torch import Tensor

from acf.flows.flow import Flow


@torch.no_grad()
def largest_reconstruction_error(flow: Flow, batches: Iterable[Tensor]) -> float:
    """Largest |x - f^-1(f(x))| over all values of all images x (B, C, H, W) in [0, 1) of all batches.

    Raises:
        NotContractiveError: a block has no proof of contraction.
        ConvergenceError: a fixed-point iteration did not reach its accuracy.
    """
    worst = 0.0
    for x in batches:
        x = x.to(next(flow.parameters()).device)
        worst = max(worst, float((x - flow.inverse(flow.transform(x))).abs().max()))
    return worst
