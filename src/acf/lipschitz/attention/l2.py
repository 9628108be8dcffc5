"""L2 self-attention with tied query and key (Kim et al., arXiv 2006.04710), under a sharper constant."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from acf.lipschitz.attention.ball import bounded_exp
from acf.lipschitz.attention.kernel import KernelSelfAttention
from acf.lipschitz.bounds.constants import l2_attention_constant
from acf.lipschitz.first_batch import mean_of_all_ranks


class L2SelfAttention(KernelSelfAttention):
    """Heads G_h(X U_h) / Lambda_N with G(Q) = softmax_j(-b_h |q_i - q_j|^2) Q, joined by W_O.

    Lambda_N does not depend on the bandwidths b_h > 0, which are learnt freely (Theorem 1 of docs/mathematics.md).

    Args:
        channels: C.
        heads: number of heads.
        coefficient: largest norm of the two projections.
        head_width: channels of a head's tokens, ceil(C / heads) by default.
    """

    def __init__(self, channels: int, heads: int = 1, coefficient: float = 0.98, head_width: int | None = None) -> None:
        super().__init__(channels, heads, 1, coefficient, head_width)
        self.log_bandwidth = nn.Parameter(torch.full((heads, 1, 1), -math.log(self.head_width)))

    @override
    def match_scales(self, *projected: Tensor) -> None:
        """Set the bandwidths to one over the mean squared distance of two tokens.

        Heads whose tokens are all the same up to rounding keep the bandwidth that they have.
        """
        (q,) = projected
        spread = q.var(2, correction=0).sum(-1).mean(0) if len(q) else q.new_zeros(self.heads)
        spread = mean_of_all_ranks(spread, len(q)).view(-1, 1, 1)
        size = mean_of_all_ranks(q.square().sum(-1).mean((0, 2)), len(q)).view(-1, 1, 1)
        differ = (2 * spread > 1e-12) & (spread > (32 * torch.finfo(q.dtype).eps) ** 2 * size)
        self.log_bandwidth.copy_(torch.where(differ, -(2 * spread).log(), self.log_bandwidth))

    @override
    def features(self, projected: Sequence[Tensor], scales: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return Q = [2 b z, 1], K = [z, -b |z|^2] and V = q / Lambda_N for centred tokens z = q - mean(q)."""
        (q,), (log_bandwidth,) = projected, scales
        # Centring keeps all distances; an offset of all tokens would cost digits in the differences of squares.
        z = q - q.mean(-2, keepdim=True)
        bandwidth = bounded_exp(log_bandwidth)
        # The term -b |z_i|^2 is constant along a row, so the softmax does not depend on it.
        keys = torch.cat([z, -bandwidth * z.square().sum(-1, keepdim=True)], -1)
        queries = torch.cat([2 * bandwidth * z, torch.ones_like(z[..., :1])], -1)
        return queries, keys, q / l2_attention_constant(q.shape[-2])
