"""Activations with a proven bound of the slope.

Each has `widening`, the number of output channels per input channel.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# max over x of d/dx [x sigmoid(x)], attained at x = 2.39935...; the last digit is rounded up.
SWISH_SLOPE = 1.0998393202


def _steepness(beta: Tensor) -> Tensor:
    """softplus(beta), held where x sigmoid(b x) / b can be computed; the bound of the slope does not depend on b."""
    return F.softplus(beta).clamp(1e-6, 1e6)


class LipSwish(nn.Module):
    """x sigmoid(b x) / 1.1 with b = softplus(beta) learnt (arXiv 1906.02735, section 3.3).

    The slope does not depend on b: x sigmoid(b x) = swish(b x) / b. Its largest value is 1.09984 / 1.1 < 1.
    """

    widening = 1

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise, any shape."""
        b = _steepness(self.beta)
        return F.silu(b * x) / (1.1 * b)

    def lipschitz_bound(self, n_tokens: int | None = None) -> float:
        """Largest slope."""
        return SWISH_SLOPE / 1.1


class ELU(nn.ELU):
    """x for x > 0, exp(x) - 1 otherwise; the slope lies in (0, 1]."""

    widening = 1

    def __init__(self) -> None:
        super().__init__()

    def lipschitz_bound(self, n_tokens: int | None = None) -> float:
        """Largest slope."""
        return 1.0


# max over x of |(swish'(x), swish'(-x))| with swish'(-x) = 1 - swish'(x): sqrt(s^2 + (1 - s)^2) at the largest s.
PAIR_SLOPE = (SWISH_SLOPE**2 + (SWISH_SLOPE - 1) ** 2) ** 0.5


class CLipSwish(nn.Module):
    """x -> [LipSwish(x) ; LipSwish(-x)] / 1.004 along dimension 1 (arXiv 2102.02694, section 3.3): twice the channels.

    Each x enters two outputs, with slopes s / 1.1 and (s - 1) / 1.1 where -0.09984 <= s <= 1.09984, so the norm is at
    most sqrt(1.09984^2 + 0.09984^2) / 1.1 = 1.00396 before the division.
    """

    widening = 2

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, ...) -> (B, 2 C, ...)."""
        b = _steepness(self.beta)
        # x sigmoid(-b x) = x - x sigmoid(b x) saves the second exponential.
        right = F.silu(b * x) / b
        return torch.cat([right, right - x], 1) / (1.1 * 1.004)

    def lipschitz_bound(self, n_tokens: int | None = None) -> float:
        """Largest norm of the two slopes."""
        return PAIR_SLOPE / (1.1 * 1.004)
