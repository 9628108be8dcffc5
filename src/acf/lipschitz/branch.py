"""Branches g of a residual block x + g(x), built from 1-Lipschitz pieces."""

import itertools
from functools import partial

import torch
from torch import Tensor, nn

from acf.lipschitz.activations import Swish
from acf.lipschitz.layer import (
    VJP,
    Tensors,
    effective_tensors,
    intermediate_values,
    supports_bfloat16,
    value_and_jvp,
    value_and_vjp,
)
from acf.lipschitz.normalised import Normalised, NormalisedConv2d, NormalisedLinear
from acf.registry import ACTIVATIONS, ATTENTIONS, JOINS, resolve
from acf.settings.config import ModelConfig

Shape = tuple[int, int, int]


class Branch(nn.Sequential):
    """Layers one after the other; the Lipschitz bound is the product of theirs."""

    def lipschitz_bound(self, n_tokens: int) -> float:
        """Proven upper bound of the branch's l2 Lipschitz constant on maps with `n_tokens` positions."""
        bound = 1.0
        for layer in self:
            if not hasattr(layer, "lipschitz_bound"):
                raise TypeError(f"{type(layer).__name__} has no lipschitz_bound, so the branch has no certificate")
            bound *= layer.lipschitz_bound(n_tokens)  # type: ignore[operator]
        return bound

    def effective_tensors(self) -> Tensors:
        """Tensors of each layer, the scales of activations taken over by the linear maps beside them."""
        tensors = [effective_tensors(layer) for layer in self]
        for here, layer in enumerate(self):
            if isinstance(layer, Swish):
                inner, outer = tensors[here]
                if here > 0 and isinstance(self[here - 1], Normalised):
                    tensors[here - 1] = tuple(inner * tensor for tensor in tensors[here - 1])
                    inner = ()
                if here + 1 < len(self) and isinstance(self[here + 1], Normalised):
                    weight, *bias = tensors[here + 1]
                    tensors[here + 1] = (outer * weight, *bias)
                    outer = ()
                tensors[here] = inner, outer
        return tuple(tensors)

    def value_and_vjp(self, x: Tensor, tensors: Tensors, dtype: torch.dtype) -> tuple[Tensor, VJP]:
        """Value, and the layers' products in reverse order."""
        pulls = []
        for layer, own in zip(self, tensors, strict=True):
            x, pull = value_and_vjp(layer, x, own, dtype)
            pulls.append(pull)

        def pull_all(v: Tensor) -> Tensor:
            for pull in reversed(pulls):
                v = pull(v)
            return v

        return x, pull_all

    def value_and_jvp(self, z: Tensor, tensors: Tensors) -> Tensor:
        """Value and tangent."""
        for layer, own in zip(self, tensors, strict=True):
            z = value_and_jvp(layer, z, own)
        return z

    @property
    def supports_bfloat16(self) -> bool:
        """Whether all layers can be computed in bfloat16."""
        return all(supports_bfloat16(layer) for layer in self)

    def intermediate_values(self, positions: int) -> int:
        """Largest of the layers'."""
        return max((intermediate_values(layer, positions) for layer in self), default=0)


class Reshape(nn.Module):
    """(B, ...) -> (B, *shape)."""

    supports_bfloat16 = True

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """Any shape of the same number of values."""
        return x.reshape(-1, *self.shape)

    def value_and_vjp(self, x: Tensor, tensors: Tensors, dtype: torch.dtype) -> tuple[Tensor, VJP]:
        """Value, and the cotangent in the shape of x."""
        before = x.shape[1:]
        return self(x), lambda v: v.reshape(-1, *before)

    def value_and_jvp(self, z: Tensor, tensors: Tensors) -> Tensor:
        """Value and tangent."""
        return self(z)

    def lipschitz_bound(self, n_tokens: int | None = None) -> float:
        """1: values stay what they are."""
        return 1.0


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
    """Attention as a block of its own; every head sees all channels, so wider projections could not do more."""
    channels = shape[0]
    return Branch(attention(config, channels, head_width=channels))


def fc_branch(config: ModelConfig, shape: Shape) -> Branch:
    """Three dense layers over all values of the map, each after an activation (arXiv 1906.02735, appendix E)."""
    channels, height, width = shape
    values = channels * height * width
    activation = resolve(ACTIVATIONS, config.activation, "activation")
    layers: list[nn.Module] = [Reshape(values)]
    widths = [values, config.fc_width, config.fc_width, values]
    for inputs, outputs in itertools.pairwise(widths):
        layers += [
            activation(),
            NormalisedLinear(activation.widening * inputs, outputs, coefficient=config.coefficient),
        ]
    return Branch(*layers, Reshape(*shape))


def joined_attention(config: ModelConfig, channels: int) -> list[nn.Module]:
    """Attention within a branch, joined to the features there; nothing where none is configured."""
    if not _within(config):
        return []
    join = resolve(JOINS, config.attention.join, "way of joining")
    return [join.over(partial(attention, config), channels, config.attention.share)]


def join_widening(config: ModelConfig) -> int:
    """Factor by which `joined_attention` raises the number of channels."""
    return int(resolve(JOINS, config.attention.join, "way of joining").widening) if _within(config) else 1


def attention(config: ModelConfig, channels: int, head_width: int | None = None) -> nn.Module:
    """Return the attention layer that is configured, for `channels` channels."""
    made = resolve(ATTENTIONS, config.attention.kind, "attention")
    return made(channels, config.attention.heads, config.coefficient, head_width)


def _within(config: ModelConfig) -> bool:
    return config.attention.kind != "none" and config.attention.join in JOINS
