"""Branches with convex potential layers between their first and their last convolution."""

from acf.errors import ConfigError
from acf.lipschitz.branch import Branch, Shape, join_widening, joined_attention
from acf.lipschitz.normalised_conv import NormalisedConv2d
from acf.lipschitz.potential_layer import PotentialLayer
from acf.settings.config import ModelConfig


def potential_branch(config: ModelConfig, shape: Shape, leading_activation: bool) -> Branch:
    """Build a convolution to `idim` channels, a potential layer for each inner kernel, and a convolution back.

    Attention, where configured, stands before the last convolution.

    Args:
        config: width, kernels, coefficient, attention.
        shape: (C, H, W) of the block's input and output.
        leading_activation: ignored; what bends is in the potential layers.

    Raises:
        ConfigError: there are fewer than three kernels, so that the branch would be linear.
    """
    if len(config.kernels) < 3:
        raise ConfigError(
            f"kernels ({config.kernels}) must have at least three entries where branch is potential: the first and the "
            "last are linear, those between are potential layers"
        )
    channels, *size = shape
    place = (size[0], size[1])
    first, *inner, last = config.kernels
    width = config.idim
    return Branch(
        NormalisedConv2d(channels, width, first, place, config.coefficient),
        *(PotentialLayer(width, width, kernel, place, config.coefficient) for kernel in inner),
        *joined_attention(config, width, place),
        NormalisedConv2d(width * join_widening(config), channels, last, place, config.coefficient),
    )
