"""Activations with a proven bound of the slope."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# max over x of d/dx [x sigmoid(x)], attained at x = 2.39935...; the last digit is rounded up.
SWISH_SLOPE = 1.0998393202


class LipSwish(nn.Module):
    """x sigmoid(b x) / 1.1 with b = softplus(beta) learnt (arXiv 1906.02735, section 3.3).

    The slope does not depend on b: x sigmoid(b x) = swish(b x) / b. Its largest value is 1.09984 / 1.1 < 1.
    """

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        b = F.softplus(self.beta)
        return F.silu(b * x) / (1.1 * b)

    def lipschitz_bound(self, n_tokens: int | None = None) -> float:
        """Largest slope."""
        return SWISH_SLOPE / 1.1


class ELU(nn.ELU):
    """x for x > 0, exp(x) - 1 otherwise; the slope lies in (0, 1]."""

    def __init__(self) -> None:
        super().__init__()

    def lipschitz_bound(self, n_tokens: int | None = None) -> float:
        """Largest slope."""
        return 1.0
