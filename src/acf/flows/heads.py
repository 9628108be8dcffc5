"""Classification heads, which read the features of a flow and are no part of its bijection."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from acf.flows.actnorm import ActNorm


class ClassificationHeads(nn.Module):
    """Logits of K classes from the features at the end of every scale (arXiv 1906.02735, section 5.4 and its code).

    On each scale: a 3x3 convolution to `width` channels (a linear layer on vectors), activation normalisation, ReLU,
    and the mean over positions. One linear layer makes the logits of all of them together. Nothing is random, and a
    sample's logits do not depend on the other samples of its batch.

    The heads are outside the bijection: certificate, inverse and log-determinant do not depend on them.

    Args:
        shapes: (C, H, W) or (D,) of the features of each scale.
        width: number of channels of each head.
        classes: K.
    """

    def __init__(self, shapes: Sequence[Sequence[int]], width: int, classes: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(_head(shape, width) for shape in shapes)
        self.norms = nn.ModuleList(ActNorm((width, *shape[1:])) for shape in shapes)
        self.logits = nn.Linear(width * len(shapes), classes)

    @override
    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Return the logits (B, K) from the features of each scale, (B, C, H, W) or (B, D).

        The first batch in training mode sets the scales of the normalisation.
        """
        pooled = []
        for head, norm, x in zip(self.heads, self.norms, features, strict=True):
            y = norm(head(x))[0].relu()
            pooled.append(y.flatten(2).mean(2) if y.dim() > 2 else y)
        return self.logits(torch.cat(pooled, dim=1))


def _head(shape: Sequence[int], width: int) -> nn.Module:
    return nn.Conv2d(shape[0], width, 3, padding=1) if len(shape) == 3 else nn.Linear(shape[0], width)
