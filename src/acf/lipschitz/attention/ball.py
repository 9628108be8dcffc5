"""Projection of tokens on a ball, which bounds dot-product logits for every input, and bounds of learnt scales."""

from functools import reduce

import torch
from torch import Tensor

from acf.lipschitz.first_batch import mean_of_all_ranks

# Limits of learnt logarithms and logits, so that squares of radii and products of tokens stay within float32.
LARGEST_LOG, LARGEST_LOGIT = 30.0, 10.0


def clip_to_ball(x: Tensor, radius: Tensor) -> Tensor:
    """x min(1, radius / |x|) along the last dimension of (..., d): the projection on a convex set, so 1-Lipschitz."""
    square = x.square().sum(-1, keepdim=True)
    return x * (radius * square.clamp_min(radius.square()).rsqrt())


def bounded_exp(log: Tensor) -> Tensor:
    """exp(log) for a learnt logarithm, clamped to [exp(-30), exp(30)]."""
    return log.clamp(-LARGEST_LOG, LARGEST_LOG).exp()


def bounded_sigmoid(logit: Tensor) -> Tensor:
    """sigmoid(logit) for a learnt logit, clamped to [4.5e-5, 1 - 4.5e-5]."""
    return torch.sigmoid(logit.clamp(-LARGEST_LOGIT, LARGEST_LOGIT))


def log_typical_length(*tokens: Tensor, otherwise: Tensor) -> Tensor:
    """Return the logarithm of each head's root mean square length of tokens (B, heads, N, d), as (heads, 1, 1).

    The mean is over the tokens of all ranks. `otherwise` (heads, 1, 1) stands for the logarithm of heads whose tokens
    are zero up to 1e-6, which have no typical length.

    Raises:
        InputError: a mean is not finite.
    """
    square = reduce(torch.add, (x.square().sum(-1).mean((0, 2)) for x in tokens)) / len(tokens)
    square = mean_of_all_ranks(square, len(tokens[0])).view(-1, 1, 1)
    return torch.where(square > 1e-12, 0.5 * square.log(), otherwise)
