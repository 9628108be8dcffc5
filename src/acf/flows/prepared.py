"""What a flow makes once per pass for all of its bijections, where one by one would cost many small operations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from acf.lipschitz.layer import Tensors


@dataclass(frozen=True)
class BlockInputs:
    """What one contractive block needs.

    Attributes:
        tensors: the effective tensors of its branch.
        series_weights: weights of the terms of its power series, and
        probe: that series' probe, both None in evaluation mode.
    """

    tensors: Tensors
    series_weights: Sequence[float] | None = None
    probe: Tensor | None = None


@dataclass(frozen=True)
class Scale:
    """What one ActNorm needs: exp(s), and its log-determinant, a scalar in nats."""

    factor: Tensor
    log_abs_det: Tensor


@dataclass(frozen=True)
class Prepared:
    """What a pass needs.

    Attributes:
        blocks: the inputs by contractive block.
        scales: the scales by ActNorm.
        condition: features (B, width) of what the density depends on; None where it depends on nothing.
    """

    blocks: Mapping[nn.Module, BlockInputs]
    scales: Mapping[nn.Module, Scale]
    condition: Tensor | None = None
