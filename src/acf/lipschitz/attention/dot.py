"""Dot-product self-attention under Lipschitz normalisation (Dasoulas et al., arXiv 2103.04886)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from acf.lipschitz.attention.kernel import KernelSelfAttention
from acf.lipschitz.bounds.constants import dot_attention_constant

SMALLEST_SCALE = 1e-6


class DotProductSelfAttention(KernelSelfAttention):
    """Per head softmax(Q K^T / c) V / Lambda'_N, c = max(u v, u w, v w), u = |Q|_F, v = max |k_i|, w = max |v_i|.

    The norms are those of the actual Q, K, V of each sample and head, and are differentiated through; Lambda'_N is the
    joint constant (Theorem 2 of docs/mathematics.md). As sum_i |q_i|^2 / u^2 = 1, the logits are of the order
    1 / sqrt(N): the layer is certified, and by construction close to a mean over the tokens.

    Args:
        channels: C.
        heads: number of heads.
        coefficient: largest norm of [W_Q, W_K, W_V] and of W_O.
        head_width: channels of a head's tokens, ceil(C / heads) by default.
    """

    def __init__(self, channels: int, heads: int = 1, coefficient: float = 0.98, head_width: int | None = None) -> None:
        super().__init__(channels, heads, 3, coefficient, head_width)

    @override
    def features(self, projected: Sequence[Tensor], scales: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return Q = q / c, K = k and V = v / Lambda'_N."""
        q, k, v = projected
        u = _root(q.square().sum((-1, -2), keepdim=True))
        longest_key = _root(k.square().sum(-1, keepdim=True).amax(-2, keepdim=True))
        longest_value = _root(v.square().sum(-1, keepdim=True).amax(-2, keepdim=True))
        scale = torch.maximum(torch.maximum(u * longest_key, u * longest_value), longest_key * longest_value)
        return q / scale.clamp_min(SMALLEST_SCALE), k, v / dot_attention_constant(q.shape[-2])


def _root(square: Tensor) -> Tensor:
    """Square root with a finite derivative at zero."""
    return square.clamp_min(1e-20).sqrt()
