"""Classification heads, which read the features of a flow and are no part of its bijection."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from acf.flows.actnorm import ActNorm


class ClassificationHeads(nn.Module):
    """Logits of K classes from the features at the end of every scale (after the code of arXiv 1906.02735).

    On each scale: a 3x3 convolution to `width` channels (1x1 on maps of one position, as vectors are), activation
    normalisation, ReLU, and the mean over positions. One linear layer makes the logits of all of them together. Nothing
    is random, and the logits of a sample do not depend on the other samples of its batch.

    Args:
        shapes: (C, H, W) of the features of each scale.
        width: number of channels of each head.
        classes: K.
    """

    def __init__(self, shapes: Sequence[tuple[int, int, int]], width: int, classes: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(_convolution(shape, width) for shape in shapes)
        self.norms = nn.ModuleList(ActNorm((width, height, wide)) for _, height, wide in shapes)
        self.last = nn.Linear(width * len(shapes), classes)

    @override
    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the logits (B, K) from the features of each scale, (B, C, H, W).

        The first batch in training mode sets the scales of the normalisation.
        """
        parts = zip(self.convolutions, self.norms, features, strict=True)
        pooled = [norm(convolution(x))[0].relu().mean((2, 3)) for convolution, norm, x in parts]
        return self.last(torch.cat(pooled, dim=1))


def _convolution(shape: tuple[int, int, int], width: int) -> nn.Conv2d:
    channels, height, wide = shape
    return nn.Conv2d(channels, width, 1) if height == wide == 1 else nn.Conv2d(channels, width, 3, padding=1)
