"""From pixel values to unbounded ones."""

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from acf.flows.inputs import require_pixels
from acf.flows.preprocessing import Preprocessing


class Logit(Preprocessing):
    """y = logit(a + (1 - 2a) x) elementwise, for x in [0, 1] (arXiv 1605.08803, section 4.1).

    log dy/dx = log(1 - 2a) - log s - log(1 - s) with s = a + (1 - 2a) x; 1 - s is computed as a + (1 - 2a)(1 - x),
    which keeps its digits when a is tiny and x near 1. It is finite on `domain`, a little more than [0, 1].

    Args:
        alpha: a, in [0, 1/2); at 0 the domain is (0, 1) without its ends.

    Raises:
        ValueError: alpha is outside.
    """

    def __init__(self, alpha: float = 0.05) -> None:
        super().__init__()
        if not 0 <= alpha < 0.5:
            raise ValueError(f"alpha must lie in [0, 1/2), got {alpha}")
        self.alpha = alpha

    @override
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        span = 1 - 2 * self.alpha
        log_s, log_rest = (self.alpha + span * x).log(), (self.alpha + span * (1 - x)).log()
        return log_s - log_rest, (math.log(span) - log_s - log_rest).flatten(1).sum(1)

    @override
    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return (sigmoid(y) - a) / (1 - 2a), which is outside [0, 1] where sigmoid(y) is outside [a, 1 - a].

        Where rounding makes sigmoid(y) 0 or 1 it is the end of `domain`, so that it can be mapped back.
        """
        return ((y.sigmoid() - self.alpha) / (1 - 2 * self.alpha)).clamp(*self.domain(y.dtype))

    def domain(self, dtype: torch.dtype) -> tuple[float, float]:
        """Return the smallest and the largest x of this type where y is finite."""
        return _domain(self.alpha, dtype)

    @override
    def require_values(self, x: Tensor) -> None:
        """Check that all values lie in `domain`, or raise InputError."""
        require_pixels(x, self.domain(x.dtype))

    @override
    def into_range(self, x: Tensor) -> Tensor:
        """Return x clamped to [0, 1)."""
        return x.clamp(0, 1 - torch.finfo(x.dtype).eps)

    @override
    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


@cache
def _domain(alpha: float, dtype: torch.dtype) -> tuple[float, float]:
    """Step inwards from the ends of exact arithmetic, -a / (1 - 2a) and 1 + a / (1 - 2a), until y is finite.

    In numpy, which rounds alike: no operation of torch may depend on values where `torch.export` records.
    """
    of_type = np.dtype(str(dtype).removeprefix("torch.")).type
    edge, span = alpha / (1 - 2 * alpha), of_type(1 - 2 * alpha)
    ends = []
    for end in (of_type(-edge), of_type(1 + edge)):
        while not (of_type(alpha) + span * end > 0 and of_type(alpha) + span * (1 - end) > 0):
            end = np.nextafter(end, of_type(0.5))
        ends.append(float(end))
    return ends[0], ends[1]
