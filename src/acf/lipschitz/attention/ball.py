"""Projection of tokens on a ball, which makes dot-product logits bounded whatever the input."""

from torch import Tensor


def clip_to_ball(x: Tensor, radius: Tensor) -> Tensor:
    """x min(1, radius / |x|) along the last dimension of (..., d): the projection on a convex set, so 1-Lipschitz."""
    square = x.square().sum(-1, keepdim=True)
    return x * (radius * square.clamp_min(radius.square()).rsqrt())


def log_typical_length(*tokens: Tensor) -> Tensor:
    """Logarithm of the root mean square length of tokens (B, heads, N, d), head by head: (heads, 1, 1)."""
    square = sum(x.square().sum(-1).mean((0, 2)) for x in tokens) / len(tokens)
    return 0.5 * square.clamp_min(1e-12).log().view(-1, 1, 1)  # type: ignore[union-attr]
