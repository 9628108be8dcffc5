"""The multi-scale architecture."""

import torch
from torch import Tensor, nn

from acf.flows.bijection import Bijection, Solved


class MultiScale(Bijection):
    """Scales one after the other; with factor-out half of the channels leave after each but the last.

    x (B, C, H, W) -> z (B, C*H*W): the parts factored out, first scale first, then the last scale's output
    (arXiv 1605.08803, section 3.6; Residual Flows keep all channels by default).

    Args:
        scales: the bijection of each scale, squeezes included.
        shapes: (C, H, W) of each scale's output.
        factor_out: whether channels leave between scales.
    """

    def __init__(self, scales: list[Bijection], shapes: list[tuple[int, int, int]], factor_out: bool) -> None:
        super().__init__()
        self.scales = nn.ModuleList(scales)
        self.shapes, self.factor_out = shapes, factor_out

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Apply all scales."""
        total = x.new_zeros(len(x))
        left: list[Tensor] = []
        for index, scale in enumerate(self.scales):
            x, log_abs_det = scale(x)
            total = total + log_abs_det
            x = self._split(x, index, left)
        return torch.cat([*left, x.flatten(1)], dim=1), total

    def transform(self, x: Tensor) -> Tensor:
        """Apply all scales."""
        left: list[Tensor] = []
        for index, scale in enumerate(self.scales):
            x = self._split(scale.transform(x), index, left)  # type: ignore[operator]
        return torch.cat([*left, x.flatten(1)], dim=1)

    def inverse(self, y: Tensor) -> Tensor:
        """Undo all scales."""
        return self.recorded_inverse(y, {})

    def recorded_inverse(self, y: Tensor, solved: Solved) -> Tensor:
        """Undo all scales."""
        sizes = [c // 2 * h * w if self._splits(i) else 0 for i, (c, h, w) in enumerate(self.shapes[:-1])]
        *left, x = y.split([*sizes, y.shape[1] - sum(sizes)], dim=1)
        x = x.reshape(len(y), *self.shapes[-1])
        for index in reversed(range(len(self.shapes))):
            channels, height, width = self.shapes[index]
            if self._splits(index):
                x = torch.cat([x, left[index].reshape(len(y), channels // 2, height, width)], dim=1)
            x = self.scales[index].recorded_inverse(x, solved)  # type: ignore[operator]
        return x

    def _split(self, x: Tensor, index: int, left: list[Tensor]) -> Tensor:
        if not self._splits(index):
            return x
        x, out = x.chunk(2, dim=1)
        left.append(out.flatten(1))
        return x

    def _splits(self, index: int) -> bool:
        return self.factor_out and index < len(self.shapes) - 1
