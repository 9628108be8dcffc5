"""Dot-product self-attention on clipped tokens: bounded logits instead of a normaliser that depends on the input."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from acf.lipschitz.attention.ball import bounded_exp, bounded_sigmoid, log_typical_length
from acf.lipschitz.attention.ball_attention import BallSelfAttention
from acf.lipschitz.bounds.constants import clipped_attention_constant
from acf.settings.config import AttentionConfig


class ClippedSelfAttention(BallSelfAttention):
    """Per head softmax(t Q' K'^T / r^2) V' / L with |q'|, |k'| <= r and |v'| <= w, tokens clipped to these balls.

    L = sqrt(cosh(t)^2 + (t w / r)^2 (1 + b(t)^2)) is the joint Lipschitz constant for every number of tokens (Theorem 3
    of docs/mathematics.md). Each head learns its radii r, w > 0 and its sharpness t in (0, `max_sharpness`).

    Args:
        channels: C.
        heads: number of heads.
        coefficient: largest norm of [W_Q, W_K, W_V] and of W_O.
        head_width: channels of a head's tokens, ceil(C / heads) by default.
        max_sharpness: upper end of t.
    """

    def __init__(
        self,
        channels: int,
        heads: int = 1,
        coefficient: float = 0.98,
        head_width: int | None = None,
        *,
        max_sharpness: float = 2.0,
    ) -> None:
        super().__init__(channels, heads, 3, coefficient, head_width)
        self.max_sharpness = max_sharpness
        self.sharpness = nn.Parameter(torch.full((heads, 1, 1), -1.0))
        self.log_radius = nn.Parameter(torch.zeros(heads, 1, 1))
        self.log_value_radius = nn.Parameter(torch.zeros(heads, 1, 1))

    @classmethod
    @override
    def options(cls, config: AttentionConfig, size: tuple[int, int]) -> dict[str, Any]:
        return {"max_sharpness": config.max_sharpness}

    @override
    def match_scales(self, *projected: Tensor) -> None:
        """Set the radii to the root mean square length of the tokens, so that about half of them are clipped."""
        q, k, v = projected
        log_radius = log_typical_length(q, k, otherwise=self.log_radius)
        log_value_radius = log_typical_length(v, otherwise=self.log_value_radius)
        self.log_radius.copy_(log_radius)
        self.log_value_radius.copy_(log_value_radius)

    @override
    def radii_and_factors(self, scales: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return radii and factors of Q = t q' / r^2, K = k' and V = v' / L for clipped tokens q', k', v'."""
        sharpness, log_radius, log_value_radius = scales
        t = self.max_sharpness * bounded_sigmoid(sharpness)
        radius, value_radius = bounded_exp(log_radius), bounded_exp(log_value_radius)
        constant = clipped_attention_constant(t, t * (value_radius / radius))
        radii = torch.stack([radius, radius, value_radius])
        return radii.unsqueeze(1), torch.stack([t / radius.square(), torch.ones_like(t), 1 / constant]).unsqueeze(1)
