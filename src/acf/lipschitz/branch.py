"""Branches g of a residual block x + g(x), built from 1-Lipschitz pieces."""

import itertools

import torch
from torch import Tensor, nn

from acf.config import ModelConfig
from acf.errors import ConfigError
from acf.lipschitz.normalised import NormalisedConv2d, NormalisedLinear
from acf.registry import ACTIVATIONS, ATTENTIONS, resolve

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


class ConvexShare(nn.Module):
    """x -> (1 - s) x + s A(x), s = sigmoid(gamma) learnt, so that Lip <= (1 - s) + s Lip(A).

    The published x + gamma A(x) with free gamma has no bound below 1 + |gamma|.

    Args:
        inner: the map A, which keeps the shape.
        share: s at the start, in (0, 1).
    """

    def __init__(self, inner: nn.Module, share: float = 0.5) -> None:
        super().__init__()
        self.inner = inner
        self.gamma = nn.Parameter(torch.logit(torch.tensor(share)))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape `inner` takes."""
        return torch.lerp(x, self.inner(x), torch.sigmoid(self.gamma))

    def lipschitz_bound(self, n_tokens: int) -> float:
        """(1 - s) + s Lip(A)."""
        share = float(torch.sigmoid(self.gamma.detach().cpu().double()))
        return (1 - share) + share * self.inner.lipschitz_bound(n_tokens)  # type: ignore[operator]


def conv_branch(config: ModelConfig, shape: Shape, leading_activation: bool) -> Branch:
    """Activation and convolution in turns, with attention before the last convolution where configured.

    Args:
        config: width, kernels, activation, coefficient, attention.
        shape: (C, H, W) of the block's input and output.
        leading_activation: whether the branch starts with an activation; the flow's first block does not.
    """
    channels, *size = shape
    widths = [channels, *[config.idim] * (len(config.kernels) - 1), channels]
    activation = resolve(ACTIVATIONS, config.activation, "activation")
    layers: list[nn.Module] = []
    for index, kernel in enumerate(config.kernels):
        if index > 0 or leading_activation:
            layers.append(activation())
        if index == len(config.kernels) - 1 and config.attention.kind != "none":
            layers.append(ConvexShare(_attention(config, widths[index]), config.attention.share))
        layers.append(
            NormalisedConv2d(widths[index], widths[index + 1], kernel, (size[0], size[1]), config.coefficient)
        )
    return Branch(*layers)


def fc_branch(config: ModelConfig, shape: Shape) -> Branch:
    """Three dense layers over all values of the map, each after an activation (arXiv 1906.02735, appendix E)."""
    channels, height, width = shape
    values = channels * height * width
    activation = resolve(ACTIVATIONS, config.activation, "activation")
    layers: list[nn.Module] = [nn.Flatten()]
    widths = [values, config.fc_width, config.fc_width, values]
    for inputs, outputs in itertools.pairwise(widths):
        layers += [activation(), NormalisedLinear(inputs, outputs, coefficient=config.coefficient)]
    return Branch(*layers, nn.Unflatten(1, shape))


def _attention(config: ModelConfig, channels: int) -> nn.Module:
    kind, heads = config.attention.kind, config.attention.heads
    if channels % heads:
        raise ConfigError(f"attention.heads ({heads}) must divide the branch's width ({channels})")
    return resolve(ATTENTIONS, kind, "attention")(channels, heads, coefficient=config.coefficient)
