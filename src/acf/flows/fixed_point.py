"""Solutions of x + g(x) = y for a contraction g, with an error bound."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from acf.errors import ConvergenceError, NotContractiveError
from acf.flows.anderson import Anderson

MEMORY = 8
ROUNDING = 32
"""Residuals up to this many machine epsilons, relative to x and y, may be rounding errors alone."""
ALLOWANCE = 4
"""Machine epsilons, relative to x and y, allowed for the rounding of the residual, a sum of three numbers."""


@dataclass(frozen=True)
class Solution:
    """The solution of x + g(x) = y for a batch.

    Attributes:
        x: solution (B, ...).
        bound: upper bound (B,) of the l2 error |x - x*| of each sample.
        evaluations: number of evaluations of g per sample, (B,), integers.
    """

    x: Tensor
    bound: Tensor
    evaluations: Tensor


@dataclass(frozen=True)
class StoppingRule:
    """When a sample of an iteration for x + g(x) = y stops.

    Attributes:
        relative_residual: largest |y - x - g(x)| asked for, relative to max(1, |y|).
        rate: proven bound L of Lip(g), by which every plain step must shrink the residual; 1 where nothing is proven.
    """

    relative_residual: float
    rate: float = 1.0

    @classmethod
    def proven(cls, lipschitz: float, dtype: torch.dtype, tolerance: float | None = None) -> Self:
        """Return the rule that makes errors at most `tolerance` max(1, |y|), by Lip(g) <= L < 1.

        Args:
            lipschitz: proven bound L of g.
            dtype: type of the computation.
            tolerance: relative l2 error asked for; by default 1e-12 in float64 and 1e-5 otherwise.

        Raises:
            NotContractiveError: L >= 1.
        """
        if not lipschitz < 1:
            raise NotContractiveError(f"cannot invert: the proven Lipschitz bound is {lipschitz:.4f}, not below 1")
        if tolerance is None:
            tolerance = 1e-12 if dtype == torch.float64 else 1e-5
        return cls(tolerance * (1 - lipschitz), lipschitz)


@dataclass(frozen=True)
class Iterate:
    """What an iteration for x + g(x) = y ended with.

    Attributes:
        x: last point (B, ...).
        residual: upper bound (B,) of |y - x - g(x)| for the g that was computed.
        evaluations: number of evaluations of g per sample, (B,), integers.
        broken: number of samples whose residual was not finite.
    """

    x: Tensor
    residual: Tensor
    evaluations: Tensor
    broken: int = 0


@torch.no_grad()
def invert(
    g: Callable[[Tensor], Tensor],
    y: Tensor,
    lipschitz: float,
    tolerance: float | None = None,
    memory: int = MEMORY,
    max_evaluations: int = 5000,
) -> Solution:
    """Solve x + g(x) = y by a safeguarded Anderson iteration from x = y.

    With r = y - x - g(x) and Lip(g) <= L < 1, |x - x*| <= |r| / (1 - L) (docs/mathematics.md, Proposition 8). Each
    sample stops when this bound, plus an allowance for the rounding of the sum y - x - g(x), is below `tolerance` times
    max(1, |y|). In this test the allowance counts for at most half the tolerance, which it exceeds in float32; the
    bound returned contains it in full. A sample also stops when its residual is as small as rounding errors and no
    longer falls, as it would at every step without rounding; its bound may then exceed the tolerance. The rounding
    errors of g itself are not part of the bound.

    An accelerated point is taken only if its residual is at most L times the present one; otherwise the step is x + r,
    whose residual always is. So |r_n| <= L^n |r_0| after n steps of at most two evaluations each. A plain step that
    falls short of this by more than rounding refutes L, and its sample is refused.

    Args:
        g: contraction on (B, ...) that treats samples independently.
        y: right-hand side (B, ...).
        lipschitz: proven bound L of g.
        tolerance: relative l2 error asked for; by default 1e-12 in float64 and 1e-5 otherwise.
        memory: number of secants that the acceleration uses; 0 for the plain iteration.
        max_evaluations: largest number of evaluations of g per sample.

    Raises:
        NotContractiveError: L >= 1.
        ConvergenceError: a residual is not finite, or refutes L, or `max_evaluations` were not enough.
    """
    return invert_each(lambda x, _: g(x), y, lipschitz, tolerance, memory, max_evaluations)


@torch.no_grad()
def invert_each(
    g: Callable[[Tensor, Tensor], Tensor],
    y: Tensor,
    lipschitz: float,
    tolerance: float | None = None,
    memory: int = MEMORY,
    max_evaluations: int = 5000,
) -> Solution:
    """Solve x + g_i(x) = y as `invert` does, for a map g_i of its own for each sample i.

    Args:
        g: (x, i) -> g_i(x), for x (b, ...) and the rising indices i (b,) of its samples within the batch.
        y: as for `invert`, and so are the other arguments.
        lipschitz: proven bound of every g_i.
    """
    rule = StoppingRule.proven(lipschitz, y.dtype, tolerance)
    try:
        found = iterate_each(g, y, rule, memory, max_evaluations)
    except ConvergenceError as error:
        raise ConvergenceError(f"cannot invert: {error}") from None
    if found.broken:
        raise ConvergenceError(
            f"cannot invert: {found.broken} of {len(y)} samples have a residual that is not finite (NaN or infinity in "
            "the input or the weights)"
        )
    return Solution(found.x, found.residual / (1 - lipschitz), found.evaluations)


@torch.no_grad()
def iterate_each(
    g: Callable[[Tensor, Tensor], Tensor],
    y: Tensor,
    rule: StoppingRule,
    memory: int = MEMORY,
    max_evaluations: int = 5000,
) -> Iterate:
    """Iterate as `invert_each` does, until `rule` says that a sample has arrived.

    A sample whose residual is not finite, as with NaN in the input or the weights, ends as NaN with an infinite
    residual, as in any other map.

    Raises:
        ConvergenceError: a residual refutes the rate, or `max_evaluations` were not enough.
    """
    iteration = _Iteration(g, y, rule, memory)
    for _ in range(max_evaluations):
        if not len(iteration.active):
            break
        iteration.evaluate()
    return iteration.result()


class _Iteration:
    """All samples of one `invert`, as rows of (B, D); samples that are done or refused leave `active`.

    Attributes:
        active: indices of the samples still iterated; `point`, `plain` and `anderson` hold these only.
        point: where g is evaluated next.
        plain: whether that point is the step x + r.
        x, r, norm, unit: per sample the iterate, its residual, the residual's norm and one rounding error of it.
    """

    def __init__(self, g: Callable[[Tensor, Tensor], Tensor], y: Tensor, rule: StoppingRule, memory: int) -> None:
        self.g, self.shape, self.y = g, y.shape, y.flatten(1)
        self.rate = max(rule.rate, torch.finfo(y.dtype).tiny)
        self.size = self.y.norm(dim=1).clamp_min(1.0)
        self.goal = rule.relative_residual * self.size
        self.x, self.r = self.y.clone(), torch.zeros_like(self.y)
        self.norm, self.unit = torch.full_like(self.size, torch.inf), torch.zeros_like(self.size)
        self.evaluations = torch.zeros(len(y), dtype=torch.long, device=y.device)
        self.settled = torch.zeros(len(y), dtype=torch.bool, device=y.device)
        self.active = torch.arange(len(y), device=y.device)
        self.point, self.plain = self.x, torch.ones_like(self.settled)
        self.anderson, self.started = Anderson(self.y, memory), False

    def evaluate(self) -> None:
        """Evaluate g once for every active sample, accept or reject the points, and choose the next ones."""
        point = self.point
        rows = slice(None) if len(self.active) == len(self.y) else self.active  # a slice of all copies nothing
        residual = self.y[rows] - point - self.g(point.reshape(-1, *self.shape[1:]), self.active).flatten(1)
        norm, before = residual.norm(dim=1), self.norm[rows]
        # x may be much longer than y, and the residual is a difference of numbers of x's size.
        unit = torch.finfo(point.dtype).eps * torch.maximum(self.size[rows], point.norm(dim=1))
        finite = norm.isfinite() & unit.isfinite()
        promised = self.rate * before
        low = before <= ROUNDING * self.unit[rows]
        # At the size of rounding a residual that stays as it is has arrived; with a rate of 1 it would go on for ever.
        falls = finite & (norm <= promised) & (~low | (norm < before))
        within_rounding = finite & (norm <= promised + ROUNDING * unit)
        taken = falls | (self.plain & within_rounding & (~low | (norm < before)))
        within_goal = norm <= torch.maximum(self.goal[rows] - ALLOWANCE * unit, self.goal[rows] / 2)
        done = (taken & within_goal) | (self.plain & low & ~taken)
        refused = self.plain & ~taken & ~low

        self.evaluations[rows] += 1
        if self.started:
            self.anderson.remember(point - self.x[rows], residual - self.r[rows])
        if len(self.active) == len(self.y) and bool(taken.all()):
            self.x, self.r, self.norm, self.unit = point, residual, norm, unit
        else:
            new = self.active[taken]
            self.x[new], self.r[new], self.norm[new], self.unit[new] = (
                value[taken] for value in (point, residual, norm, unit)
            )
            self.norm[self.active[refused]] = norm[refused]
        self.settled[rows], self.started = done, True
        self._advance(~(done | refused), taken)

    def _advance(self, stays: Tensor, taken: Tensor) -> None:
        if not stays.all():
            self.active, taken = self.active[stays], taken[stays]
            self.anderson.keep(stays)
        rows = slice(None) if len(self.active) == len(self.y) else self.active
        x, r = self.x[rows], self.r[rows]
        self.plain = ~taken | self.anderson.empty
        self.point = torch.where(self.plain[:, None], x + r, self.anderson.accelerated(x, r))

    def result(self) -> Iterate:
        """Return the solutions and the bounds of their residuals.

        Raises:
            ConvergenceError: a sample is neither settled nor broken.
        """
        x, residual, count = self.x, self.norm + ALLOWANCE * self.unit, 0
        if not self.settled.all():
            unfinished = torch.zeros_like(self.settled)
            unfinished[self.active] = True
            broken = ~self.settled & ~self.norm.isfinite() & ~unfinished
            if not (self.settled | broken).all():
                raise ConvergenceError(self._failures(unfinished, ~self.settled & ~unfinished & ~broken))
            count = int(broken.sum())
            x = torch.where(broken[:, None], torch.nan, x)
            residual = torch.where(broken, torch.inf, residual)
        return Iterate(x.view(self.shape), residual, self.evaluations, count)

    def _failures(self, unfinished: Tensor, refuted: Tensor) -> str:
        too_slow = (
            "have a residual that grows; the map is no contraction"
            if self.rate >= 1
            else f"refute the Lipschitz bound {self.rate:.4f}, as their residual falls more slowly than it promises; "
            "the map is no contraction or its bound is wrong"
        )
        reasons = {too_slow: refuted, f"did not converge within {int(self.evaluations.max())} evaluations": unfinished}
        messages = [
            f"{int(which.sum())} of {len(self.y)} samples {reason}" for reason, which in reasons.items() if which.any()
        ]
        return "; ".join(messages)
