"""The interface of all bijections."""

from abc import ABC, abstractmethod
from typing import TypeAlias

from torch import Tensor, nn

from acf.flows.fixed_point import Solution

Solved: TypeAlias = dict[nn.Module, Solution]
"""How each residual block was inverted."""


class Bijection(nn.Module, ABC):
    """An invertible map of batches with the logarithm of its absolute Jacobian determinant."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (y, log_abs_det): y = f(x) and log|det df/dx| in nats, shape (B,)."""

    def transform(self, x: Tensor) -> Tensor:
        """Return f(x) alone, where the log-determinant is not needed."""
        return self(x)[0]

    @abstractmethod
    def inverse(self, y: Tensor) -> Tensor:
        """Return x with f(x) = y."""

    def recorded_inverse(self, y: Tensor, solved: Solved) -> Tensor:
        """Return `inverse(y)`; every residual block enters its solution into `solved`."""
        return self.inverse(y)


class Chain(Bijection):
    """Bijections one after the other; log-determinants add up."""

    def __init__(self, *bijections: Bijection) -> None:
        super().__init__()
        self.bijections = nn.ModuleList(bijections)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Apply all, first to last."""
        total = x.new_zeros(len(x))
        for part in self.bijections:
            x, log_abs_det = part(x)
            total = total + log_abs_det
        return x, total

    def transform(self, x: Tensor) -> Tensor:
        """Apply all, first to last."""
        for part in self.bijections:
            x = part.transform(x)  # type: ignore[operator]
        return x

    def inverse(self, y: Tensor) -> Tensor:
        """Undo all, last to first."""
        return self.recorded_inverse(y, {})

    def recorded_inverse(self, y: Tensor, solved: Solved) -> Tensor:
        """Undo all, last to first."""
        for part in reversed(self.bijections):
            y = part.recorded_inverse(y, solved)  # type: ignore[operator]
        return y
