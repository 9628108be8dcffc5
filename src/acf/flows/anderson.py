"""Anderson acceleration of a batch of fixed-point iterations."""

import torch
from torch import Tensor

RIDGE = 10
"""Machine epsilons added to the diagonal of the normal equations, so that dependent columns leave them solvable."""


class Anderson:
    """The last `memory` secants of each sample, and the accelerated iterate (type II; Walker and Ni 2011).

    With the residual r = y - x - g(x), secants dx_i and dr_i, and gamma the least-squares solution of
    sum_i gamma_i dr_i = r, the point is x + r - sum_i gamma_i (dx_i + dr_i). Every sample has its own coefficients, so
    samples do not influence each other. The normal equations are solved with columns of length 1.
    """

    def __init__(self, like: Tensor, memory: int) -> None:
        self.residual_changes = like.new_zeros(len(like), memory, like.shape[1])
        self.steps = torch.zeros_like(self.residual_changes)
        self.count = 0

    @property
    def empty(self) -> bool:
        """Whether there is no secant yet, so that `accelerated` is the plain step x + r."""
        return self.count == 0 or self.residual_changes.shape[1] == 0

    def remember(self, dx: Tensor, dr: Tensor) -> None:
        """Add one secant dx, dr (B, D) of each sample; one that is not finite is replaced by zeros."""
        if self.residual_changes.shape[1] == 0:
            return
        usable = (dx.isfinite() & dr.isfinite()).all(1, keepdim=True)
        slot = self.count % self.residual_changes.shape[1]
        self.residual_changes[:, slot] = torch.where(usable, dr, 0)
        self.steps[:, slot] = torch.where(usable, dx + dr, 0)
        self.count += 1

    def keep(self, mask: Tensor) -> None:
        """Drop the samples outside `mask`, bools (B,)."""
        self.residual_changes, self.steps = self.residual_changes[mask], self.steps[mask]

    def accelerated(self, x: Tensor, r: Tensor) -> Tensor:
        """Return the next points (B, D) for the iterates x (B, D) with residuals r (B, D)."""
        if self.empty:
            return x + r
        limits = torch.finfo(x.dtype)
        scale = self.residual_changes.norm(dim=2, keepdim=True).clamp_min(limits.tiny).reciprocal()
        columns = self.residual_changes * scale
        ridge = RIDGE * limits.eps * torch.eye(columns.shape[1], dtype=x.dtype, device=x.device)
        gamma = torch.linalg.solve_ex(columns @ columns.mT + ridge, columns @ r.unsqueeze(2))[0] * scale
        return x + r - (self.steps.mT @ gamma).squeeze(2)
