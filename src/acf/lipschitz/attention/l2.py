"""L2 self-attention with tied query and key (Kim et al., arXiv 2006.04710), under a sharper constant."""

import math

import torch
from torch import Tensor, nn

from acf.lipschitz.attention.ball import bounded_exp
from acf.lipschitz.attention.base import SelfAttention
from acf.lipschitz.constants import l2_attention_constant


class L2SelfAttention(SelfAttention):
    """Heads G_h(X U_h) / Lambda_N with G(Q) = softmax_j(-b_h |q_i - q_j|^2) Q, joined by W_O.

    Lambda_N does not depend on the bandwidths b_h > 0, which are learnt freely (Theorem 1 of docs/mathematics.md).

    Args:
        channels: C.
        heads: number of heads.
        coefficient: largest norm of the two projections.
    """

    def __init__(self, channels: int, heads: int = 1, coefficient: float = 0.98) -> None:
        super().__init__(channels, heads, projections=1, coefficient=coefficient)
        self.log_bandwidth = nn.Parameter(torch.full((heads, 1, 1), -math.log(self.head_width)))

    def match_scales(self, *projected: Tensor) -> None:
        """Start with a bandwidth of one over the mean square distance of two tokens."""
        spread = projected[0].var(2, correction=0).sum(-1).mean(0)
        self.log_bandwidth.copy_(-(2 * spread).clamp_min(1e-12).log().view(-1, 1, 1))

    def core(self, *projected: Tensor) -> Tensor:
        """(B, heads, N, d) -> (B, heads, N, d)."""
        (q,) = projected
        # Distances do not see what all tokens share, but differences of squares would lose digits to it.
        z = q - q.mean(-2, keepdim=True)
        # |z_i|^2 is constant along a row, so the softmax does not see it.
        logits = 2 * z @ z.transpose(-1, -2) - z.square().sum(-1).unsqueeze(-2)
        return torch.softmax(bounded_exp(self.log_bandwidth) * logits, -1) @ q / l2_attention_constant(q.shape[-2])
