"""The iteration for x + g(x) = y to a few digits, with as few operations as it takes: for training."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from acf.flows.fixed_point import StoppingRule

T = TypeVar("T")

LEAST_RESIDUAL = 3e-5
"""Smallest relative residual asked for: far above rounding in float32, and within reach of a few evaluations."""
MAX_EVALUATIONS = 12
"""Samples that need more are left to `fixed_point.iterate_each`, which says what is wrong with them."""
KEPT = 3
"""Evaluations that the acceleration combines."""
NOISE = 10
"""Machine epsilons; below so many, determinants of inner products, relative to their size, are rounding errors."""


@dataclass(frozen=True)
class Arrived(Generic[T]):
    """What an iteration for x + g(x) = y ended with.

    Attributes:
        x: last point (B, ...), whose residual is small enough in every sample.
        value: g(x) (B, ...), of the last evaluation.
        beside: what that evaluation returned beside g(x).
        evaluations: number of evaluations of g.
    """

    x: Tensor
    value: Tensor
    beside: T
    evaluations: int


@torch.no_grad()
def iterate_together(
    evaluate: Callable[[Tensor], tuple[Tensor, T]],
    y: Tensor,
    rule: StoppingRule,
    max_evaluations: int = MAX_EVALUATIONS,
) -> Arrived[T] | None:
    """Solve x + g(x) = y for all samples in step, or return None: `fixed_point.iterate_each` is for such cases.

    A sample that has arrived is evaluated at its own point until the last one has, so its result does not depend on
    the others, and the last evaluation is that at the solution for all. The next point is x + r for the combination
    of the last evaluations that has the smallest residual (Anderson acceleration). A point whose residual does not
    fall is replaced by the step x + r from the one before. The host reads one value per evaluation, and one
    more at the end.

    None is returned for a rule whose residual is below `LEAST_RESIDUAL`, where a sample has not arrived after
    `max_evaluations`, as with a map that is no contraction, and, once all others have arrived, where the residual of
    one is not finite.

    Args:
        evaluate: x (B, ...) -> g(x) and anything else; it must leave x as it is and treat samples independently.
        y: right-hand side (B, ...).
        rule: of whose fields only the residual is used.
        max_evaluations: largest number of evaluations.
    """
    if rule.relative_residual < LEAST_RESIDUAL:
        return None
    rows = y.flatten(1)
    goal = rule.relative_residual * rows.norm(dim=1).clamp_min(1.0)
    goal = goal.masked_fill(goal.isinf(), torch.nan)  # which no residual reaches
    steps, residuals = (rows.new_empty(len(rows), KEPT, rows.shape[1]) for _ in range(2))  # x + r, and r
    x, smallest, arrived = rows, torch.full_like(goal, torch.inf), torch.zeros_like(goal, dtype=torch.bool)
    for count in range(max_evaluations):
        beside = None  # whose memory the next evaluation needs
        value, beside = evaluate(x.view(y.shape))
        slot, kept = count % KEPT, min(count + 1, KEPT)
        step, residual = steps[:, slot], residuals[:, slot]
        torch.sub(rows, value.flatten(1), out=step)
        torch.sub(step, x, out=residual)
        norm = residual.norm(dim=1)
        arrived = arrived | (norm <= goal)
        if (arrived | ~norm.isfinite()).all():
            return Arrived(x.view(y.shape), value, beside, count + 1) if arrived.all() else None
        following = step
        if count:
            weights = _combination(residuals[:, :kept], slot)
            before = torch.zeros_like(weights)
            before[:, (count - 1) % KEPT] = 1
            weights = torch.where((norm < smallest)[:, None], weights, before)
            following = (weights.unsqueeze(1) @ steps[:, :kept]).squeeze(1)
        x = torch.where(arrived[:, None], x, following)
        smallest = torch.fmin(smallest, norm)
    return None


def _combination(residuals: Tensor, newest: int) -> Tensor:
    """Return weights (B, n) of sum 1 for which |sum_i weight_i r_i| is smallest, for n = 2 or 3 residuals (B, n, D).

    With the rows k_i of the inner products of three residuals they are proportional to (k_2 - k_1) x (k_3 - k_1), and
    the sum of this is the determinant of the inner products of the differences. Where it is next to zero, and the
    weights are not determined, they are those of the last two residuals.
    """
    products = residuals @ residuals.mT
    pair = _combination_of_last_two(products, newest)
    if products.shape[1] == 2:
        return pair
    weights = torch.linalg.cross(*(products[:, 1:] - products[:, :1]).unbind(1))
    determinant = weights.sum(1, keepdim=True)
    floor = NOISE * torch.finfo(products.dtype).eps * products.amax((1, 2)).square()
    weights = torch.where(determinant > floor[:, None], weights / determinant, pair)
    weights[:, newest] += 1 - weights.sum(1)
    return weights


def _combination_of_last_two(products: Tensor, newest: int) -> Tensor:
    """Return these weights for the newest residual and the one before, from the inner products (B, n, n) of all.

    Where the two are next to equal, the newest has all of the weight.
    """
    before = (newest - 1) % products.shape[1]
    of_newest = products[:, before, before] - products[:, before, newest]
    length = of_newest + products[:, newest, newest] - products[:, before, newest]  # |r_before - r_newest|^2
    floor = NOISE * torch.finfo(products.dtype).eps * products.amax((1, 2))
    weights = products.new_zeros(products.shape[:2])
    weights[:, newest] = torch.where(length > floor, of_newest / length, 1)
    weights[:, before] = 1 - weights[:, newest]
    return weights
