"""Inverse of x -> x + g(x) for a contraction g, with an error bound."""

from collections.abc import Callable

import torch
from torch import Tensor

from acf.errors import ConvergenceError, NotContractiveError


@torch.no_grad()
def invert(
    g: Callable[[Tensor], Tensor], y: Tensor, lipschitz: float, tolerance: float = 1e-5, most: int = 2000
) -> tuple[Tensor, Tensor]:
    """Solve x + g(x) = y by x <- y - g(x) and return (x, error), error (B,) a bound of |x - x*| in l2 per sample.

    With r = y - x - g(x) and Lip(g) <= L < 1, |x - x*| <= |r| / (1 - L) (docs/mathematics.md, Proposition 6). Each
    sample stops when this bound is below `tolerance` times max(1, |y|), or where rounding ends all progress: then the
    residual, which without rounding falls at every step, is at the level of float arithmetic and no longer falls; the
    bound returned says so. It allows for the rounding of r's own sum; rounding within g comes on top.

    Args:
        g: contraction on (B, ...) that treats samples independently.
        y: right-hand side (B, ...).
        lipschitz: proven bound L of g.
        tolerance: relative l2 error asked for.
        most: largest number of evaluations of g.

    Raises:
        NotContractiveError: L >= 1.
        ConvergenceError: a residual neither reached its goal nor the level of rounding.
    """
    if not lipschitz < 1:
        raise NotContractiveError(f"cannot invert: the proven Lipschitz bound is {lipschitz:.4f}, not below 1")
    eps = torch.finfo(y.dtype).eps
    size = y.flatten(1).norm(dim=1).clamp_min(1.0)
    goal = tolerance * size * (1 - lipschitz)
    x, norm = y.clone(), torch.full_like(size, torch.inf)
    settled, rounding = torch.zeros_like(size, dtype=torch.bool), torch.zeros_like(size)
    active = torch.arange(len(y), device=y.device)
    for _ in range(most):
        part = x[active]
        residual = y[active] - part - g(part)
        now = residual.flatten(1).norm(dim=1)
        # x may be much longer than y, and the residual is a difference of numbers of x's size.
        unit = eps * torch.maximum(size[active], part.flatten(1).norm(dim=1))
        finite = torch.isfinite(now) & torch.isfinite(unit)
        low = finite & (now <= 32 * unit)
        reached = now <= goal[active]
        stop = reached | (low & (now >= norm[active])) | ~finite
        norm[active], rounding[active], settled[active] = now, 4 * unit, reached | low
        active = active[~stop]
        if not len(active):
            break
        x[active] += residual[~stop]
    if not settled.all():
        raise ConvergenceError(
            f"fixed-point inverse: {int((~settled).sum())} of {len(y)} samples did not converge within {most} steps "
            f"(residual up to {float(norm[~settled].max()):.2e}, bound of the Lipschitz constant {lipschitz:.4f})"
        )
    return x, (norm + rounding) / (1 - lipschitz)
