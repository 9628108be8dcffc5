"""The error of the inverse on images."""

from collections.abc import Iterable

import torch
from torch import Tensor

from acf.flows.flow import Flow


@torch.no_grad()
def largest_reconstruction_error(flow: Flow, batches: Iterable[Tensor]) -> float:
    """Return the largest |x - f^-1(f(x))| over all values of all images, in units of x; 0 if there are none.

    Args:
        flow: f, in any mode.
        batches: images x (B, C, H, W) in [0, 1), on any device.

    Raises:
        NotContractiveError: a block has no proof of contraction; names it.
        ConvergenceError: a fixed-point iteration did not reach its accuracy; names the block.
    """
    worst = 0.0
    for x in batches:
        x = x.to(next(flow.parameters()).device)
        worst = max(worst, float((x - flow.inverse(flow.transform(x))).abs().max()))
    return worst
