"""The densely connected branch of i-DenseNets (Perugachi-Diaz, Tomczak, Bhulai, arXiv 2102.02694)."""

from acf.errors import ConfigError
from acf.lipschitz.branch import Branch, Shape, join_widening, joined_attention
from acf.lipschitz.join import Concatenation
from acf.lipschitz.layer import LipschitzLayer
from acf.lipschitz.normalised_conv import NormalisedConv2d
from acf.registry import ACTIVATIONS, resolve
from acf.settings.config import ModelConfig


class DenseLayer(Concatenation):
    """h -> [cos(a) h ; sin(a) phi(T h)] along the channels, a learnt, with a contraction T and an activation phi.

    Lip^2 <= cos(a)^2 + sin(a)^2 (Lip(phi) |T|)^2 (Proposition 6b of docs/mathematics.md); the published
    eta_1 / sqrt(eta_1^2 + eta_2^2) and eta_2 / sqrt(eta_1^2 + eta_2^2) are the cosine and sine (there times 0.98,
    which the last convolution of our branch makes unnecessary).

    Args:
        linear: T.
        activation: phi, elementwise or joining channels.
    """

    inner: Branch

    def __init__(self, linear: NormalisedConv2d, activation: LipschitzLayer) -> None:
        super().__init__(Branch(linear, activation))

    @property
    def linear(self) -> LipschitzLayer:
        """T."""
        return self.inner.layers()[0]

    @property
    def activation(self) -> LipschitzLayer:
        """phi."""
        return self.inner.layers()[1]


def dense_branch(config: ModelConfig, shape: Shape, leading_activation: bool) -> Branch:
    """Build `depth` dense layers of 3x3 convolutions, each adding `growth` channels, then a 1x1 convolution.

    On maps of one position all convolutions are 1x1. Attention, where configured, stands before the last convolution.
    There is no leading activation: the first layer applies its activation to new channels only, and passes the input
    on.

    Args:
        config: depth, growth, activation, coefficient, attention.
        shape: (C, H, W) of the block's input and output.
        leading_activation: ignored.
    """
    channels, *size = shape
    place = (size[0], size[1])
    activation = resolve(ACTIVATIONS, config.activation, "activation")
    new, rest = divmod(config.dense.growth, activation.widening)
    if rest:
        raise ConfigError(f"dense.growth ({config.dense.growth}) must be a multiple of {activation.widening}")
    kernel = 1 if place == (1, 1) else 3
    layers: list[LipschitzLayer] = []
    width = channels
    for _ in range(config.dense.depth):
        layers.append(DenseLayer(NormalisedConv2d(width, new, kernel, place, config.coefficient), activation()))
        width += config.dense.growth
    layers += joined_attention(config, width, place)
    return Branch(*layers, NormalisedConv2d(width * join_widening(config), channels, 1, place, config.coefficient))
