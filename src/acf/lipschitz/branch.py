"""Branches g of contractive blocks, built from 1-Lipschitz pieces."""

import itertools
from functools import partial

import torch
from torch import Tensor, nn
from typing_extensions import override

from acf.errors import ConfigError
from acf.lipschitz.activations import Activation, ScaledActivation
from acf.lipschitz.attention.self_attention import SelfAttention
from acf.lipschitz.effective import Described, Description, ScaledMap
from acf.lipschitz.either_layout import EitherLayout
from acf.lipschitz.kernels.layout import in_layout
from acf.lipschitz.layer import VJP, LipschitzLayer, Pullback, Tensors
from acf.lipschitz.normalised_conv import NormalisedConv2d
from acf.lipschitz.normalised_linear import NormalisedLinear
from acf.registry import ACTIVATIONS, ATTENTIONS, JOINS, resolve
from acf.settings.config import ModelConfig

Shape = tuple[int, int, int]


class Branch(nn.Sequential, Described):
    """Layers one after the other; the Lipschitz bound is the product of theirs.

    It is an `nn.Sequential`, so layers are read and replaced by their index; each must be a `LipschitzLayer`, which is
    checked when a bound or a derivative is asked for.
    """

    def layers(self) -> list[LipschitzLayer]:
        """Return all layers in order.

        Raises:
            TypeError: a module is no `LipschitzLayer`, so that the branch has no certificate.
        """
        layers: list[LipschitzLayer] = []
        for layer in self:
            if not isinstance(layer, LipschitzLayer):
                raise TypeError(
                    f"{type(layer).__name__} has no lipschitz_bound (it is no LipschitzLayer), so the branch has no "
                    "certificate"
                )
            layers.append(layer)
        return layers

    @override
    def lipschitz_bound(self, n_tokens: int) -> float:
        bound = 1.0
        for layer in self.layers():
            bound *= layer.lipschitz_bound(n_tokens)
        return bound

    @override
    def described_tensors(self) -> Description:
        """Describe the tensors of each layer, the scales of activations absorbed by the linear maps beside them."""
        layers = self.layers()
        described = [layer.described_tensors() for layer in layers]
        for here, layer in enumerate(layers):
            if isinstance(layer, ScaledActivation):
                inner, outer = described[here]
                if here > 0 and isinstance(described[here - 1], ScaledMap):
                    described[here - 1].output_scale, inner = inner, ()
                if here + 1 < len(layers) and isinstance(described[here + 1], ScaledMap):
                    described[here + 1].input_scale, outer = outer, ()
                described[here] = inner, outer
        return tuple(described)

    @override
    def value_and_vjp(self, x: Tensor, tensors: Tensors, dtype: torch.dtype) -> tuple[Tensor, VJP]:
        """Return g(x), and the products J_1^T ... J_n^T v of the layers' Jacobians J_1, ..., J_n.

        Between layers that take either layout features stay in the one in which these give them.
        """
        vjps: list[VJP] = []
        rows, size = False, x.shape[2:]
        for layer, own in zip(self.layers(), tensors, strict=True):
            if isinstance(layer, EitherLayout):
                x, rows, layer_vjp = layer.value_and_vjp_in(x, rows, size, own, dtype)
            else:
                if rows and not isinstance(layer, Activation):
                    x, rows = in_layout(x, True, False, size), False
                    vjps.append(lambda v: in_layout(v, False, True, size))
                x, layer_vjp = layer.value_and_vjp(x, own, dtype)
            vjps.append(layer_vjp)
        if rows:
            x = in_layout(x, True, False, size)
            vjps.append(lambda v: in_layout(v, False, True, size))

        def vjp(v: Tensor) -> Tensor:
            for layer_vjp in reversed(vjps):
                v = layer_vjp(v)
            return v

        return x, vjp

    @override
    def jvp_and_pullback(self, z: Tensor, tensors: Tensors) -> tuple[Tensor, Pullback]:
        pullbacks: list[tuple[Pullback, bool, bool]] = []  # with the layouts of output and result
        rows, size = False, z.shape[2:]
        for layer, own in zip(self.layers(), tensors, strict=True):
            if isinstance(layer, EitherLayout):
                z, gives_rows, layer_pullback = layer.jvp_and_pullback_in(z, rows, size, own)
                pullbacks.append((layer_pullback, gives_rows, rows))
                rows = gives_rows
            else:
                takes_rows = rows and isinstance(layer, Activation)
                z, layer_pullback = layer.jvp_and_pullback(in_layout(z, rows, takes_rows, size), own)
                pullbacks.append((layer_pullback, takes_rows, takes_rows))
                rows = takes_rows
        last_rows = rows

        def pullback(u: Tensor) -> tuple[Tensor, Tensors]:
            cotangents: list[Tensors] = []
            rows = False
            for layer_pullback, output_rows, input_rows in reversed(pullbacks):
                u, of_tensors = layer_pullback(in_layout(u, rows, output_rows, size))
                cotangents.append(of_tensors)
                rows = input_rows
            return in_layout(u, rows, False, size), tuple(reversed(cotangents))

        return in_layout(z, last_rows, False, size), pullback

    @property
    @override
    def supports_bfloat16(self) -> bool:
        return all(layer.supports_bfloat16 for layer in self.layers())

    @override
    def intermediate_values(self, positions: int) -> int:
        return max((layer.intermediate_values(positions) for layer in self.layers()), default=0)


class Reshape(LipschitzLayer):
    """(B, ...) -> (B, *shape), with the same number of values and the Lipschitz constant 1."""

    supports_bfloat16 = True

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    @override
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.shape)

    @override
    def value_and_vjp(self, x: Tensor, tensors: Tensors, dtype: torch.dtype) -> tuple[Tensor, VJP]:
        before = x.shape[1:]
        return self(x), lambda v: v.reshape(len(v), *before)

    @override
    def jvp_and_pullback(self, z: Tensor, tensors: Tensors) -> tuple[Tensor, Pullback]:
        before = z.shape
        return self(z), lambda u: (u.reshape(before), ())

    @override
    def lipschitz_bound(self, n_tokens: int | None = None) -> float:
        return 1.0


def conv_branch(config: ModelConfig, shape: Shape, leading_activation: bool) -> Branch:
    """Build activations and convolutions in turns, with attention before the last convolution where configured.

    Args:
        config: width, kernels, activation, coefficient, attention.
        shape: (C, H, W) of the block's input and output.
        leading_activation: whether the branch starts with an activation; the flow's first block does not.
    """
    channels, *size = shape
    activation = resolve(ACTIVATIONS, config.activation, "activation")
    last = len(config.kernels) - 1
    layers: list[LipschitzLayer] = []
    width = channels
    for index, kernel in enumerate(config.kernels):
        if index > 0 or leading_activation:
            layers.append(activation())
            width *= activation.widening
        if index == last:
            layers += joined_attention(config, width, (size[0], size[1]))
            width *= join_widening(config)
        out = channels if index == last else config.idim
        layers.append(NormalisedConv2d(width, out, kernel, (size[0], size[1]), config.coefficient))
        width = out
    return Branch(*layers)


def attention_branch(config: ModelConfig, shape: Shape) -> Branch:
    """Build a branch of attention alone; the tokens of every head have all C channels.

    Wider heads could not compute more, as the product of two projections has rank C at most.
    """
    channels, height, width = shape
    return Branch(attention(config, channels, (height, width), head_width=channels))


def fc_branch(config: ModelConfig, shape: Shape) -> Branch:
    """Build three dense layers over all values of the map, each after an activation (arXiv 1906.02735, appendix E)."""
    channels, height, width = shape
    values = channels * height * width
    activation = resolve(ACTIVATIONS, config.activation, "activation")
    layers: list[LipschitzLayer] = [Reshape(values)]
    widths = [values, config.fc_width, config.fc_width, values]
    for inputs, outputs in itertools.pairwise(widths):
        layers += [
            activation(),
            NormalisedLinear(activation.widening * inputs, outputs, coefficient=config.coefficient),
        ]
    return Branch(*layers, Reshape(*shape))


def joined_attention(config: ModelConfig, channels: int, size: tuple[int, int]) -> list[LipschitzLayer]:
    """Return a list of the layer that joins attention to `channels` features; empty where none is configured.

    Args:
        config: attention and its join.
        channels: of the maps.
        size: (H, W) of the maps.
    """
    if not _is_joined(config):
        return []
    join = resolve(JOINS, config.attention.join, "way of joining")
    return [join.for_channels(partial(attention, config, size=size), channels, config.attention.share)]


def join_widening(config: ModelConfig) -> int:
    """Return the factor by which `joined_attention` raises the number of channels."""
    return int(resolve(JOINS, config.attention.join, "way of joining").widening) if _is_joined(config) else 1


def attention(
    config: ModelConfig, channels: int, size: tuple[int, int], head_width: int | None = None
) -> LipschitzLayer:
    """Return the configured attention layer for maps of `channels` channels and a size (H, W).

    Raises:
        ConfigError: the maps cannot be cut into windows.
    """
    settings, (height, width) = config.attention, size
    made = resolve(ATTENTIONS, settings.kind, "attention")
    around = size if settings.window is None else (min(settings.window, height), min(settings.window, width))
    if height % around[0] or width % around[1]:
        raise ConfigError(
            f"attention.window ({settings.window}) does not divide maps of {height} x {width}; choose a divisor of "
            "their sides, or leave these maps without attention by attention.max_tokens"
        )
    options = made.options(settings, around)
    layer: SelfAttention = made(channels, settings.heads, config.coefficient, head_width, **options)
    layer.window = settings.window
    return layer


def _is_joined(config: ModelConfig) -> bool:
    """Whether attention stands within branches, joined to their features."""
    return config.attention.kind != "none" and config.attention.join in JOINS
