"""Anderson acceleration of a batch of fixed-point iterations."""

import torch
from torch import Tensor

RIDGE = 10
"""Machine epsilons added to the squares of columns of length 1, so that dependent columns keep a solution."""


class Anderson:
    """The last `memory` secants of each sample, and the point they suggest (type II; Walker and Ni 2011).

    With the residual r = y - x - g(x), secants dx_i and dr_i, and gamma the least-squares solution of
    sum_i gamma_i dr_i = r, the point is x + r - sum_i gamma_i (dx_i + dr_i). Every sample has its own coefficients, so
    samples do not influence each other. The normal equations are solved with columns of length 1.
    """

    def __init__(self, like: Tensor, memory: int) -> None:
        self.falls = like.new_zeros(len(like), memory, like.shape[1])
        self.moves = torch.zeros_like(self.falls)
        self.pushed = 0

    @property
    def empty(self) -> bool:
        """Whether there is no secant to go by."""
        return self.pushed == 0 or self.falls.shape[1] == 0

    def push(self, dx: Tensor, dr: Tensor) -> None:
        """Remember one secant (B, D) of each sample; one that is not finite counts as none."""
        if self.falls.shape[1] == 0:
            return
        usable = (dx.isfinite() & dr.isfinite()).all(1, keepdim=True)
        slot = self.pushed % self.falls.shape[1]
        self.falls[:, slot] = torch.where(usable, dr, 0)
        self.moves[:, slot] = torch.where(usable, dx + dr, 0)
        self.pushed += 1

    def keep(self, mask: Tensor) -> None:
        """Forget the samples outside `mask`."""
        self.falls, self.moves = self.falls[mask], self.moves[mask]

    def suggest(self, x: Tensor, r: Tensor) -> Tensor:
        """Return the point (B, D) for the iterates x (B, D) with residuals r (B, D)."""
        if self.empty:
            return x + r
        limits = torch.finfo(x.dtype)
        scale = self.falls.norm(dim=2, keepdim=True).clamp_min(limits.tiny).reciprocal()
        columns = self.falls * scale
        ridge = RIDGE * limits.eps * torch.eye(columns.shape[1], dtype=x.dtype, device=x.device)
        gamma = torch.linalg.solve_ex(columns @ columns.mT + ridge, columns @ r.unsqueeze(2))[0] * scale
        return x + r - (self.moves.mT @ gamma).squeeze(2)
