"""Projection of tokens on a ball, which makes dot-product logits bounded whatever the input."""

import torch
from torch import Tensor

# Limits of what is exponentiated, so that squares of radii and products of tokens stay within float32.
LARGEST_LOG, LARGEST_LOGIT = 30.0, 10.0


def clip_to_ball(x: Tensor, radius: Tensor) -> Tensor:
    """x min(1, radius / |x|) along the last dimension of (..., d): the projection on a convex set, so 1-Lipschitz."""
    square = x.square().sum(-1, keepdim=True)
    return x * (radius * square.clamp_min(radius.square()).rsqrt())


def bounded_exp(log: Tensor) -> Tensor:
    """exp(log) for a learnt logarithm, held within exp(-30) and exp(30)."""
    return log.clamp(-LARGEST_LOG, LARGEST_LOG).exp()


def bounded_sigmoid(logit: Tensor) -> Tensor:
    """sigmoid(logit) for a learnt logit, held away from 0 and 1 by 4.5e-5."""
    return torch.sigmoid(logit.clamp(-LARGEST_LOGIT, LARGEST_LOGIT))


def log_typical_length(*tokens: Tensor) -> Tensor:
    """Logarithm of the root mean square length of tokens (B, heads, N, d), head by head: (heads, 1, 1)."""
    square = sum(x.square().sum(-1).mean((0, 2)) for x in tokens) / len(tokens)
    return 0.5 * square.clamp_min(1e-12).log().view(-1, 1, 1)  # type: ignore[union-attr]
