"""Densities on the plane that flows are tried on: samplers, and the densities that they sample from.

The eight of the code published with FFJORD (arXiv 1810.01367, `lib/toy_data.py`), which the codes of arXiv 1906.02735
and 2109.12135 copy, with its scales and its noise, but that the pinwheel is its mirror image. Each is a mixture of
parts of equal weight, which are the labels c of p(x | c): a Gaussian, a moon, an arm, a ring, a square. Densities are
in closed form or by quadrature; where that code spreads points evenly (moons, circles, rings) they are independent
here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from acf.data.toy_density import HALF_WIDTH, ToyDensity
from acf.errors import ConfigError, shown

TINY = torch.finfo(torch.float64).tiny
NODES = 400
"""Of the quadrature along a curve, which are closer together than the standard deviation of the noise."""


@dataclass(frozen=True)
class Gaussians(ToyDensity):
    """Eight Gaussians on a circle."""

    parts: int = 8
    radius: float = 4 / 1.414
    sigma: float = 0.5 / 1.414

    def _centres(self) -> Tensor:
        return self.radius * _unit(_turns(self.parts))

    @override
    def _points(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        return self._centres()[labels] + self.sigma * _normal(len(labels), generator)

    @override
    def part_log_probs(self, x: Tensor) -> Tensor:
        return _log_normal(x[:, None] - self._centres(), self.sigma)


@dataclass(frozen=True)
class Rings(ToyDensity):
    """Circles about 0 with Gaussian noise; in closed form, with the Bessel function I_0."""

    radii: tuple[float, ...]
    sigma: float = 0.24

    @property
    def parts(self) -> int:  # type: ignore[override]
        """One per circle."""
        return len(self.radii)

    @override
    def entropy(self, of_parts: bool = False, step: float = 0.1) -> float:
        """Return the entropy as `ToyDensity.entropy`, by the trapezoidal rule along a radius, at a 20th of `step`."""
        radii = torch.arange(0, HALF_WIDTH, step / 20, dtype=torch.float64)
        of_each = self.part_log_probs(torch.stack([radii, torch.zeros_like(radii)], 1))
        logs = of_each if of_parts else of_each.logsumexp(1, keepdim=True) - math.log(self.parts)
        along = torch.xlogy(logs.exp(), logs.exp()).mean(1)
        return -float((2 * math.pi * radii * along).sum()) * step / 20

    @override
    def _points(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        radii = torch.tensor(self.radii, dtype=torch.float64)[labels, None]
        angles = 2 * math.pi * _uniform(len(labels), generator)
        return radii * _unit(angles) + self.sigma * _normal(len(labels), generator)

    @override
    def part_log_probs(self, x: Tensor) -> Tensor:
        r, radii, variance = x.norm(dim=1, keepdim=True), torch.tensor(self.radii).to(x), self.sigma**2
        bessel = torch.special.i0e(r * radii / variance).log()
        return bessel - (r - radii).square() / (2 * variance) - math.log(2 * math.pi * variance)


@dataclass(frozen=True)
class Curves(ToyDensity):
    """Points of curves with Gaussian noise, each curve with a parameter that is uniform in [0, 1).

    With `box` b, noise that is uniform in [0, b)^2 is added before the curve is mirrored.

    Attributes:
        curve: points (n, 2) for parameters (n,).
        images: the parts, as (sign, shift): the point times the sign plus the shift.
        sigma: standard deviation of the noise.
    """

    curve: Callable[[Tensor], Tensor]
    images: tuple[tuple[float, tuple[float, float]], ...]
    sigma: float
    box: float = 0.0

    @property
    def parts(self) -> int:  # type: ignore[override]
        """One per curve."""
        return len(self.images)

    @override
    def _points(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        signs, shifts = self._images()
        points = self.curve(_uniform(len(labels), generator))
        points = points + self.box * torch.rand(points.shape, generator=generator, dtype=torch.float64)
        return signs[labels, None] * points + shifts[labels] + self.sigma * _normal(len(labels), generator)

    @override
    def part_log_probs(self, x: Tensor) -> Tensor:
        nodes, weights = _gauss_legendre(NODES)
        points, (signs, shifts) = self.curve(nodes), self._images()
        found = []
        for sign, shift in zip(signs, shifts, strict=True):
            differences = sign * (x - shift)[:, None] - points
            found.append((self._log_noise(differences) + weights.log()).logsumexp(1))
        return torch.stack(found, dim=1)

    def _images(self) -> tuple[Tensor, Tensor]:
        signs, shifts = zip(*self.images, strict=True)
        return torch.tensor(signs, dtype=torch.float64), torch.tensor(shifts, dtype=torch.float64)

    def _log_noise(self, differences: Tensor) -> Tensor:
        """Log-density (...) of the noise at (..., 2), both kinds together."""
        if not self.box:
            return _log_normal(differences, self.sigma)
        # By symmetry taken where both values of the distribution function are small, and hence exact.
        away, half = (differences - self.box / 2).abs(), self.box / 2
        near, far = (torch.special.ndtr((sign * half - away) / self.sigma) for sign in (1, -1))
        return ((near - far) / self.box).prod(-1).clamp_min(TINY).log()


@dataclass(frozen=True)
class Pinwheel(ToyDensity):
    """Gaussians (1, 0) + (0.3 e_1, 0.1 e_2), turned by an angle that grows with the first value, times two.

    The density sums over all points that are turned to x, which are found by bisection, the densities of the Gaussian
    there divided by |det| = 4 |1 - f_2 exp(f_1) / 4|.
    """

    parts: int = 5
    spreads: tuple[float, float] = (0.3, 0.1)
    rate: float = 0.25
    scale: float = 2.0

    @override
    def _points(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        f1, f2 = (_normal(len(labels), generator) * torch.tensor(self.spreads, dtype=torch.float64)).unbind(1)
        f1 = f1 + 1
        angles = torch.atan2(f2, f1) + _turns(self.parts)[labels] + self.rate * f1.exp()
        return self.scale * torch.hypot(f1, f2)[:, None] * _unit(angles)

    @override
    def part_log_probs(self, x: Tensor) -> Tensor:
        r = (x.norm(dim=1, keepdim=True) / self.scale).expand(-1, self.parts)
        turned = torch.atan2(x[:, 1], x[:, 0])[:, None] - _turns(self.parts)

        def excess(psi: Tensor, r: Tensor, turned: Tensor) -> Tensor:  # whole where psi is a solution
            return (psi + self.rate * (r * psi.cos()).exp() - turned) / (2 * math.pi)

        grid = torch.linspace(-math.pi, math.pi, 257, dtype=torch.float64)
        whole = excess(grid, r[..., None], turned[..., None]).floor()
        sample, part, cell = (whole[..., 1:] != whole[..., :-1]).nonzero(as_tuple=True)
        low, high = grid[cell], grid[cell + 1]
        of_low, r_here, turned_here = whole[sample, part, cell], r[sample, part], turned[sample, part]
        for _ in range(45):
            middle = (low + high) / 2
            left = excess(middle, r_here, turned_here).floor() == of_low
            low, high = torch.where(left, middle, low), torch.where(left, high, middle)
        f1, f2 = r_here * low.cos(), r_here * low.sin()
        quadratic = ((f1 - 1) / self.spreads[0]).square() + (f2 / self.spreads[1]).square()
        normal = (-quadratic / 2).exp() / (2 * math.pi * math.prod(self.spreads))
        density = normal / (self.scale**2 * (1 - f2 * self.rate * f1.exp()).abs())
        total = torch.zeros_like(turned).index_put_((sample, part), density, accumulate=True)
        return total.clamp_min(TINY).log()


@dataclass(frozen=True)
class Checkerboard(ToyDensity):
    """Uniform on the eight dark squares of a board of four by four, each of side 2."""

    parts: int = 8

    @override
    def _points(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        return self._corners()[labels] + 2 * torch.rand(len(labels), 2, generator=generator, dtype=torch.float64)

    @override
    def part_log_probs(self, x: Tensor) -> Tensor:
        inside = x[:, None] - self._corners()
        outside = ((inside < 0) | (inside >= 2)).any(2)
        return torch.full(outside.shape, -math.log(4)).to(x).masked_fill(outside, -math.inf)

    @override
    def entropy(self, of_parts: bool = False, step: float = 0.1) -> float:
        return math.log(4 if of_parts else 4 * self.parts)

    @staticmethod
    def _corners() -> Tensor:
        places = [(column, row) for column in range(-2, 2) for row in range(-2, 2) if (column + row) % 2 == 0]
        return 2 * torch.tensor(places, dtype=torch.float64)


def _spiral(u: Tensor) -> Tensor:
    turn = 3 * math.pi * u.sqrt()
    return turn[:, None] * torch.stack([-turn.cos(), turn.sin()], dim=1) / 3


def _swiss_roll(u: Tensor) -> Tensor:
    turn = 1.5 * math.pi * (1 + 2 * u)
    return turn[:, None] * _unit(turn) / 5


def _half_circle(u: Tensor) -> Tensor:
    return 2 * _unit(math.pi * u)


TOYS: dict[str, ToyDensity] = {
    "8gaussians": Gaussians(),
    "moons": Curves(_half_circle, ((1.0, (-1.0, -0.2)), (-1.0, (1.0, 0.8))), 0.2),
    "2spirals": Curves(_spiral, ((1.0, (0.0, 0.0)), (-1.0, (0.0, 0.0))), 0.1, box=0.5 / 3),
    "checkerboard": Checkerboard(),
    "rings": Rings((3.0, 2.25, 1.5, 0.75), sigma=0.08),
    "pinwheel": Pinwheel(),
    "circles": Rings((3.0, 1.5)),
    "swissroll": Curves(_swiss_roll, ((1.0, (0.0, 0.0)),), 0.2),
}


def toy_density(name: str) -> ToyDensity:
    """Return the density called `name`.

    Raises:
        ConfigError: there is none; names those there are.
    """
    if name not in TOYS:
        raise ConfigError(f"unknown toy {shown(name)}; known: {', '.join(TOYS)}")
    return TOYS[name]


def _unit(angles: Tensor) -> Tensor:
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def _turns(parts: int) -> Tensor:
    return torch.arange(parts, dtype=torch.float64) * (2 * math.pi / parts)


def _uniform(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator, dtype=torch.float64)


def _normal(count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, 2, generator=generator, dtype=torch.float64)


def _log_normal(differences: Tensor, sigma: float) -> Tensor:
    return -differences.square().sum(-1) / (2 * sigma**2) - math.log(2 * math.pi * sigma**2)


def _gauss_legendre(count: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the quadrature on [0, 1]."""
    import numpy as np

    nodes, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy(nodes / 2 + 0.5), torch.from_numpy(weights / 2)
