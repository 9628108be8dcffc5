"""What `Flow.invert` returns."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Inversion:
    """An inverse with what is known of its accuracy.

    Attributes:
        x: images (B, C, H, W) or vectors (B, D).
        bounds: per contractive block, by the names of `Flow.contractive_blocks`, the bound (B,) of the l2 error of that
            block's solution, for the right-hand side y that the block received. An error of y itself, which comes from
            the blocks inverted before, is not part of it.
        evaluations: per contractive block the number of evaluations of its branch for each sample, (B,).
    """

    x: Tensor
    bounds: dict[str, Tensor]
    evaluations: dict[str, Tensor]
