"""Activation normalisation."""

import torch
from torch import Tensor, nn
from typing_extensions import override

from acf.flows.bijection import Bijection

SMALLEST_STD = 0.1


class ActNorm(Bijection):
    """y = exp(s) (x + b) with s, b learnt, initialised from one batch (arXiv 1807.03039, section 3.1).

    The first batch seen in training sets b and s so that each output has mean 0 and standard deviation 1; a standard
    deviation below 0.1 counts as 0.1, so that values that are almost constant in that batch do not explode later.

    Args:
        shape: (C, H, W) of the maps.
        per_value: one pair for every value of the map instead of one per channel (for dense blocks).
    """

    initialised: Tensor

    def __init__(self, shape: tuple[int, int, int], per_value: bool = False) -> None:
        super().__init__()
        channels, height, width = shape
        size = shape if per_value else (channels, 1, 1)
        self.positions = 1 if per_value else height * width
        self.shift = nn.Parameter(torch.zeros(size))
        self.log_scale = nn.Parameter(torch.zeros(size))
        self.register_buffer("initialised", torch.tensor(False))

    @override
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.training and not self.initialised:
            self._initialise(x.detach())
        log_abs_det = self.log_scale.sum() * self.positions
        return (x + self.shift) * self.log_scale.exp(), log_abs_det.expand(len(x))

    @override
    def inverse(self, y: Tensor) -> Tensor:
        """Return exp(-s) y - b."""
        return y * (-self.log_scale).exp() - self.shift

    @torch.no_grad()
    def _initialise(self, x: Tensor) -> None:
        dims = (0,) if self.positions == 1 else (0, 2, 3)
        std, mean = torch.std_mean(x, dim=dims, correction=0)
        self.shift.copy_(-mean.view_as(self.shift))
        self.log_scale.copy_(-std.clamp_min(SMALLEST_STD).log().view_as(self.log_scale))
        self.initialised.fill_(True)
