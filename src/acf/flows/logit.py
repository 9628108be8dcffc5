"""From pixel values to unbounded ones."""

import math

from torch import Tensor
from typing_extensions import override

from acf.flows.bijection import Bijection


class Logit(Bijection):
    """y = logit(a + (1 - 2a) x) elementwise, for x in [0, 1] (arXiv 1605.08803, section 4.1).

    log dy/dx = log(1 - 2a) - log s - log(1 - s) with s = a + (1 - 2a) x; 1 - s is computed as a + (1 - 2a)(1 - x),
    which keeps its digits when a is tiny and x near 1.

    Args:
        alpha: a, in (0, 1/2).
    """

    def __init__(self, alpha: float = 0.05) -> None:
        super().__init__()
        self.alpha = alpha

    @override
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        span = 1 - 2 * self.alpha
        log_s, log_rest = (self.alpha + span * x).log(), (self.alpha + span * (1 - x)).log()
        return log_s - log_rest, (math.log(span) - log_s - log_rest).flatten(1).sum(1)

    @override
    def inverse(self, y: Tensor) -> Tensor:
        """Return (sigmoid(y) - a) / (1 - 2a), which is outside [0, 1] where sigmoid(y) is outside [a, 1 - a]."""
        return (y.sigmoid() - self.alpha) / (1 - 2 * self.alpha)

    @override
    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"
