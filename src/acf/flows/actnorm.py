"""Activation normalisation."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from typing_extensions import override

from acf.flows.bijection import PreparedBijection
from acf.flows.prepared import Prepared, Scale
from acf.lipschitz.effective import Scalar, evaluate
from acf.lipschitz.first_batch import StartedByFirstBatch, samples_of_all_ranks, std_mean_of_all_ranks

SMALLEST_STD = 0.2**0.5
"""Smallest standard deviation that is divided by: that of the variance at which the code of arXiv 1906.02735 stops."""
CONSTANT_STD, CONSTANT_BATCH_STD = 1e-3, 0.1
"""Standard deviations below which a value, and below all of which a batch, counts as constant."""


class ActNorm(StartedByFirstBatch, PreparedBijection):
    """y = exp(s) (x + b) with s, b learnt, initialised from one batch (arXiv 1807.03039, section 3.1).

    The first batch seen in training (where torch.distributed runs, that of all ranks, `acf.lipschitz.first_batch`) sets
    b and s so that each output has mean 0 and standard deviation 1. Where it tells too little about the scale, s stays
    small, because the factors of many such layers multiply and later images would explode:

    - a standard deviation below 0.447 counts as 0.447 (a variance below 0.2 as 0.2);
    - one below 0.001, less than that of the noise within one of 256 grey levels, leaves s = 0;
    - if all are below 0.1 the batch as a whole is nearly constant, which leaves s = 0 everywhere.

    An empty batch sets nothing; one with values that are NaN or infinite is refused (InputError) and sets nothing.

    Args:
        shape: (C, H, W) of the maps.
        per_value: one pair for every value of the map instead of one per channel (for dense blocks).
    """

    def __init__(self, shape: tuple[int, int, int], per_value: bool = False) -> None:
        super().__init__()
        channels, height, width = shape
        size = shape if per_value else (channels, 1, 1)
        self.positions = 1 if per_value else height * width
        self.shift = nn.Parameter(torch.zeros(size))
        self.log_scale = nn.Parameter(torch.zeros(size))

    @override
    def forward(self, x: Tensor, prepared: Prepared | None = None) -> tuple[Tensor, Tensor]:
        if self.training and not self.is_started():
            self._initialise_from(x.detach())
        elif prepared is not None and (scale := prepared.scales.get(self)) is not None:
            return (x + self.shift) * scale.factor, scale.log_abs_det
        log_abs_det = self.log_scale.sum() * self.positions
        return (x + self.shift) * self.log_scale.exp(), log_abs_det.expand(x.shape[0])

    @override
    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return exp(-s) y - b."""
        return y * (-self.log_scale).exp() - self.shift

    @torch.no_grad()
    def _initialise_from(self, x: Tensor) -> None:
        if samples_of_all_ranks(x) == 0:
            return
        dims = (0,) if self.positions == 1 else (0, 2, 3)
        if len(x):
            std, mean = torch.std_mean(x, dim=dims, correction=0)
        else:
            std = mean = torch.zeros_like(self.shift)
        std, mean = std_mean_of_all_ranks(std, mean, x.numel() // std.numel())
        tells_scale = (std >= CONSTANT_STD) & (std.max() >= CONSTANT_BATCH_STD)
        log_scale = torch.where(tells_scale, -std.clamp_min(SMALLEST_STD).log(), 0)
        self.shift.copy_(-mean.view_as(self.shift))
        self.log_scale.copy_(log_scale.view_as(self.log_scale))
        self.set_started()


@dataclass(frozen=True)
class _FactorAndLogAbsDet:
    """exp(s) and its log-determinant, for stacked s (L, ...) of maps with this number of positions."""

    positions: int

    def __call__(self, log_scales: Tensor) -> tuple[Tensor, Tensor]:
        return log_scales.exp(), log_scales.flatten(1).sum(1) * self.positions


def prepared_scales(norms: Iterable[ActNorm]) -> dict[nn.Module, Scale]:
    """Return what each ActNorm needs for one pass; those of one shape are computed together."""
    norms = list(norms)
    functions = [_FactorAndLogAbsDet(norm.positions) for norm in norms]
    described = [tuple(Scalar(f, norm.log_scale, i) for i in (0, 1)) for f, norm in zip(functions, norms, strict=True)]
    return {norm: Scale(*values) for norm, values in zip(norms, evaluate(described), strict=True)}
