"""Which function of the Jacobian J of a contraction g a block's log-determinant is."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LogDetForm:
    """log|det| = p log det(I + J) + m log det(I - J), for |J| < 1.

    As a power series it is sum over k >= 1 of d_(k-1) / k tr(J^k), and its derivative is
    sum over k >= 0 of d_k tr(J^k dJ), both with d_k = (-1)^k p - m.

    Attributes:
        plus: p.
        minus: m.
    """

    plus: int
    minus: int

    def coefficient(self, k: int) -> float:
        """Return d_(k-1) / k, that of tr(J^k) in the log-determinant, k >= 1."""
        return self.slope(k - 1) / k

    def slope(self, k: int) -> int:
        """Return d_k, that of tr(J^k dJ) in the derivative, k >= 0."""
        return (-1) ** k * self.plus - self.minus

    def log_abs_det(self, jacobian: Tensor) -> Tensor:
        """Return log|det| (B,) in nats for J (B, D, D)."""
        return sum(
            factor * torch.linalg.slogdet(_identity(jacobian) + sign * jacobian).logabsdet
            for sign, factor in self._signs()
        )

    def derivative(self, jacobian: Tensor) -> Tensor:
        """Return W (B, D, D) with d log|det| = tr(W dJ), which is p (I + J)^-1 - m (I - J)^-1."""
        return sum(
            sign * factor * torch.linalg.inv_ex(_identity(jacobian) + sign * jacobian).inverse
            for sign, factor in self._signs()
        )

    def _signs(self) -> list[tuple[int, int]]:
        return [(sign, factor) for sign, factor in ((1, self.plus), (-1, self.minus)) if factor]


def _identity(jacobian: Tensor) -> Tensor:
    return torch.eye(jacobian.shape[-1], dtype=jacobian.dtype, device=jacobian.device)


RESIDUAL = LogDetForm(1, 0)
"""log det(I + J), of x + g(x)."""
MONOTONE = LogDetForm(-1, 1)
"""log det(I - J) - log det(I + J), of a monotone block, whose even powers cancel."""
