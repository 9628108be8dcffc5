"""A density on the plane that is a mixture of parts, with its entropy."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

HALF_WIDTH = 6.0
"""Half the side of a square about 0 that holds all of these densities but a share below 1e-6."""


class ToyDensity(ABC):
    """A density on the plane.

    Attributes:
        parts: number of its parts of equal weight, which are the labels 0, 1, ...
    """

    parts: int

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return independent points (count, 2), float64, and the part (count,) of each.

        Args:
            count: number of points.
            generator: on the CPU.
        """
        labels = torch.randint(self.parts, (count,), generator=generator)
        return self._points(labels, generator), labels

    def log_prob(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return log p(x), or log p(x | c) with `labels` c (B,), in nats, (B,) in float64, for x (B, 2)."""
        of_parts = self.part_log_probs(x.double())
        if labels is not None:
            return of_parts.gather(1, labels[:, None])[:, 0]
        return of_parts.logsumexp(1) - math.log(self.parts)

    def entropy(self, of_parts: bool = False, step: float = 0.1) -> float:
        """Return -E log p(x) in nats, or with `of_parts` -E log p(x | c), by the trapezoidal rule on a square.

        Where the density is that of Gaussian noise sigma on something, the error of the rule falls as
        exp(-2 (pi sigma / step)^2), below 1e-8 here; one with edges gives the value in closed form.
        """
        total = 0.0
        for points in square(step).split(2_000):
            of_each = self.part_log_probs(points)
            logs = of_each if of_parts else of_each.logsumexp(1, keepdim=True) - math.log(self.parts)
            total -= float(torch.xlogy(logs.exp(), logs.exp()).sum()) / logs.shape[1]
        return total * step**2

    @abstractmethod
    def part_log_probs(self, x: Tensor) -> Tensor:
        """Return log p(x | c) of each part, (B, parts), for x (B, 2) in float64."""

    @abstractmethod
    def _points(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return one point of each part that is named, (count, 2)."""


def square(step: float, half_width: float = HALF_WIDTH) -> Tensor:
    """Return the points (n, 2) of a grid on a square about 0; the second coordinate runs first."""
    side = torch.arange(-half_width, half_width + step / 2, step, dtype=torch.float64)
    return torch.cartesian_prod(side, side)
