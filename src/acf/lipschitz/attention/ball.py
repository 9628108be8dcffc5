"""Projection of tokens on a ball, which makes dot-product logits bounded whatever the input."""

from torch import Tensor


def clip_to_ball(x: Tensor, radius: Tensor) -> Tensor:
    """x min(1, radius / |x|) along the last dimension of (..., d): the projection on a convex set, so 1-Lipschitz."""
    square = x.square().sum(-1, keepdim=True)
    return x * (radius * square.clamp_min(radius.square()).rsqrt())
