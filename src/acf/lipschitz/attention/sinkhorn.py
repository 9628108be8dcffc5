"""Doubly stochastic self-attention: a contraction for any number of tokens, with nothing to divide by."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from acf.lipschitz.attention.ball import bounded_exp, bounded_sigmoid, log_typical_length
from acf.lipschitz.attention.ball_attention import BallSelfAttention

MAX_SHARPNESS = 2.0


class SinkhornSelfAttention(BallSelfAttention):
    """Per head P V', P the doubly stochastic scaling of exp(t Q' K'^T / r^2), |q'|, |k'| <= r, |v'| <= r / (sqrt(2) t).

    Tokens are clipped to these balls. The map is 1-Lipschitz in (Q, K, V) jointly for every number of tokens, and the
    bound is attained (Theorem 4 of docs/mathematics.md). Each head learns its radius r > 0 and its sharpness t in
    (0, 2), and with them the bound of the values.

    Args:
        channels: C.
        heads: number of heads.
        coefficient: largest norm of [W_Q, W_K, W_V] and of W_O.
        head_width: channels of a head's tokens, ceil(C / heads) by default.
    """

    balanced = True

    def __init__(self, channels: int, heads: int = 1, coefficient: float = 0.98, head_width: int | None = None) -> None:
        super().__init__(channels, heads, 3, coefficient, head_width)
        self.sharpness = nn.Parameter(torch.zeros(heads, 1, 1))
        self.log_radius = nn.Parameter(torch.zeros(heads, 1, 1))

    @override
    def match_scales(self, *projected: Tensor) -> None:
        """Set the radii to the root mean square length of the tokens, so that about half of them are clipped."""
        q, k, _ = projected
        self.log_radius.copy_(log_typical_length(q, k, otherwise=self.log_radius))

    @override
    def radii_and_factors(self, scales: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return radii and factors of Q = t q' / r^2, K = k' and V = v' for clipped tokens q', k', v'."""
        sharpness, log_radius = scales
        t = MAX_SHARPNESS * bounded_sigmoid(sharpness)
        radius, one = bounded_exp(log_radius), torch.ones_like(t)
        radii = torch.stack([radius, radius, radius / (math.sqrt(2) * t)])
        return radii.unsqueeze(1), torch.stack([t / radius.square(), one, one]).unsqueeze(1)
