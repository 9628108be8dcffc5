"""Attention layers as they are before training, and parts of their parameters."""

import torch
from torch import nn

from acf.lipschitz.attention.self_attention import SelfAttention
from tests.building_blocks.layers import make_attention


def make_fresh_attention(kind: str, channels: int, heads: int) -> SelfAttention:
    """In float64 and in evaluation mode, where parameters stay as they are."""
    return make_attention(kind, channels, heads).double().eval()


@torch.no_grad()
def with_biases_zero(layer: SelfAttention) -> SelfAttention:
    for linear in (layer.project, layer.output):
        if linear.bias is not None:
            linear.bias.zero_()
    return layer


def core_parameters(layer: SelfAttention) -> list[nn.Parameter]:
    """Parameters that do not belong to a projection: bandwidths, radii, sharpness."""
    return list(layer.parameters(recurse=False))
