"""What a flow makes once per pass for all of its residual blocks, where one by one would cost many small operations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import nn

from acf.lipschitz.layer import Tensors


@dataclass(frozen=True)
class BlockInputs:
    """What one residual block needs.

    Attributes:
        tensors: the effective tensors of its branch.
        series_weights: weights of the terms of its power series in training mode.
    """

    tensors: Tensors
    series_weights: Sequence[float]


Prepared: TypeAlias = Mapping[nn.Module, BlockInputs]
"""The inputs by residual block."""
