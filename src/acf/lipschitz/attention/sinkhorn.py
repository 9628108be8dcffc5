"""Doubly stochastic self-attention: a contraction for any number of tokens, with nothing to divide by."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from acf.errors import InputError
from acf.lipschitz.attention.ball import bounded_exp, bounded_sigmoid, log_typical_length
from acf.lipschitz.attention.ball_attention import BallSelfAttention
from acf.lipschitz.attention.position import LARGEST_BIAS, relative_bias, starting_table
from acf.lipschitz.kernels.balance import LARGEST_LOGIT
from acf.settings.config import AttentionConfig


class SinkhornSelfAttention(BallSelfAttention):
    """Per head P V', P the doubly stochastic scaling of exp(t Q' K'^T / r^2 + B), |q'|, |k'| <= r.

    Tokens are clipped to these balls, and values to |v'| <= r / (sqrt(2) t). The map is 1-Lipschitz in (Q, K, V)
    jointly for every number of tokens and every B that does not depend on them, and the bound is attained (Theorem 4 of
    docs/mathematics.md). Each head learns its radius r > 0 and its sharpness t in (0, `max_sharpness`), and with them
    the bound of the values. B is zero, or, on maps of a given size, a learnt bias of relative positions
    (`acf.lipschitz.attention.position`).

    Args:
        channels: C.
        heads: number of heads.
        coefficient: largest norm of [W_Q, W_K, W_V] and of W_O.
        head_width: channels of a head's tokens, ceil(C / heads) by default.
        max_sharpness: upper end of t.
        size: (H, W) of the maps, for a bias of relative positions; None for none.
        position_start: how that bias starts, a key of `position.STARTS`.

    Raises:
        ValueError: `max_sharpness`, and the bound 3 of the bias where there is one, exceed 6 together.
    """

    def __init__(
        self,
        channels: int,
        heads: int = 1,
        coefficient: float = 0.98,
        head_width: int | None = None,
        *,
        max_sharpness: float = 2.0,
        size: tuple[int, int] | None = None,
        position_start: str = "zero",
    ) -> None:
        super().__init__(channels, heads, 3, coefficient, head_width)
        self.max_sharpness, self.size = max_sharpness, size
        self.limit = max_sharpness + (0.0 if size is None else LARGEST_BIAS)
        if not 0 < max_sharpness <= self.limit <= LARGEST_LOGIT:
            raise ValueError(
                f"max_sharpness must be positive, and with the bound of the bias at most {LARGEST_LOGIT}, but is "
                f"{max_sharpness} of {self.limit}"
            )
        self.sharpness = nn.Parameter(torch.zeros(heads, 1, 1))
        self.log_radius = nn.Parameter(torch.zeros(heads, 1, 1))
        self.position: nn.Parameter | None = None
        if size is not None:
            self.position = nn.Parameter(starting_table(position_start, heads, size))

    @classmethod
    @override
    def options(cls, config: AttentionConfig, size: tuple[int, int]) -> dict[str, Any]:
        given = {} if config.position == "none" else {"size": size, "position_start": config.position_start}
        return {"max_sharpness": config.max_sharpness, **given}

    @override
    def tokens_of(self, x: Tensor) -> Tensor:
        if self.size is not None and self.window_of(x) != self.size:
            raise InputError(
                f"this attention knows the positions of maps of {self.size[0]} x {self.size[1]}, and was given one of "
                f"{x.shape[2]} x {x.shape[3]}"
            )
        return super().tokens_of(x)

    @override
    def bias(self, scales: Sequence[Tensor]) -> Tensor | None:
        return None if self.size is None else relative_bias(scales[2], self.size)

    @override
    def match_scales(self, *projected: Tensor) -> None:
        """Set the radii to the root mean square length of the tokens, so that about half of them are clipped."""
        q, k, _ = projected
        self.log_radius.copy_(log_typical_length(q, k, otherwise=self.log_radius))

    @override
    def radii_and_factors(self, scales: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return radii and factors of Q = t q' / r^2, K = k' and V = v' for clipped tokens q', k', v'."""
        sharpness, log_radius = scales[:2]
        t = self.max_sharpness * bounded_sigmoid(sharpness)
        radius, one = bounded_exp(log_radius), torch.ones_like(t)
        radii = torch.stack([radius, radius, radius / (math.sqrt(2) * t)])
        return radii.unsqueeze(1), torch.stack([t / radius.square(), one, one]).unsqueeze(1)
