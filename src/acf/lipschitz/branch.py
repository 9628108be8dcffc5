"""Branches g of a residual block x + g(x), built from 1-Lipschitz pieces."""

import itertools
from functools import partial

from torch import nn

from acf.config import ModelConfig
from acf.lipschitz.normalised import NormalisedConv2d, NormalisedLinear
from acf.registry import ACTIVATIONS, ATTENTIONS, JOINS, resolve

Shape = tuple[int, int, int]


class Branch(nn.Sequential):
    """Layers one after the other; the Lipschitz bound is the product of theirs."""

    def lipschitz_bound(self, n_tokens: int) -> float:
        """Proven upper bound of the branch's l2 Lipschitz constant on maps with `n_tokens` positions."""
        bound = 1.0
        for layer in self:
            if hasattr(layer, "lipschitz_bound"):
                bound *= layer.lipschitz_bound(n_tokens)  # type: ignore[operator]
            elif not isinstance(layer, nn.Flatten | nn.Unflatten):
                raise TypeError(f"{type(layer).__name__} has no lipschitz_bound, so the branch has no certificate")
        return bound


def conv_branch(config: ModelConfig, shape: Shape, leading_activation: bool) -> Branch:
    """Activation and convolution in turns, with attention before the last convolution where configured.

    Args:
        config: width, kernels, activation, coefficient, attention.
        shape: (C, H, W) of the block's input and output.
        leading_activation: whether the branch starts with an activation; the flow's first block does not.
    """
    channels, *size = shape
    activation = resolve(ACTIVATIONS, config.activation, "activation")
    last = len(config.kernels) - 1
    layers: list[nn.Module] = []
    width = channels
    for index, kernel in enumerate(config.kernels):
        if index > 0 or leading_activation:
            layers.append(activation())
            width *= activation.widening
        if index == last:
            layers += joined_attention(config, width)
            width *= join_widening(config)
        out = channels if index == last else config.idim
        layers.append(NormalisedConv2d(width, out, kernel, (size[0], size[1]), config.coefficient))
        width = out
    return Branch(*layers)


def attention_branch(config: ModelConfig, shape: Shape) -> Branch:
    """Attention as a block of its own: 1x1 convolution to `idim` channels, attention, 1x1 convolution back."""
    channels, *size = shape
    widths = ((channels, config.idim), (config.idim, channels))
    first, last = (NormalisedConv2d(a, b, 1, (size[0], size[1]), config.coefficient) for a, b in widths)
    return Branch(first, attention(config, config.idim), last)


def fc_branch(config: ModelConfig, shape: Shape) -> Branch:
    """Three dense layers over all values of the map, each after an activation (arXiv 1906.02735, appendix E)."""
    channels, height, width = shape
    values = channels * height * width
    activation = resolve(ACTIVATIONS, config.activation, "activation")
    layers: list[nn.Module] = [nn.Flatten()]
    widths = [values, config.fc_width, config.fc_width, values]
    for inputs, outputs in itertools.pairwise(widths):
        layers += [
            activation(),
            NormalisedLinear(activation.widening * inputs, outputs, coefficient=config.coefficient),
        ]
    return Branch(*layers, nn.Unflatten(1, shape))


def joined_attention(config: ModelConfig, channels: int) -> list[nn.Module]:
    """Attention within a branch, joined to the features there; nothing where none is configured."""
    if not _within(config):
        return []
    join = resolve(JOINS, config.attention.join, "way of joining")
    return [join.over(partial(attention, config), channels, config.attention.share)]


def join_widening(config: ModelConfig) -> int:
    """Factor by which `joined_attention` raises the number of channels."""
    return int(resolve(JOINS, config.attention.join, "way of joining").widening) if _within(config) else 1


def attention(config: ModelConfig, channels: int) -> nn.Module:
    """Return the attention layer that is configured, for `channels` channels."""
    made = resolve(ATTENTIONS, config.attention.kind, "attention")
    return made(channels, config.attention.heads, coefficient=config.coefficient)


def _within(config: ModelConfig) -> bool:
    return config.attention.kind != "none" and config.attention.join in JOINS
