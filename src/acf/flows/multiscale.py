"""The multi-scale architecture."""

import torch
from torch import Tensor
from typing_extensions import override

from acf.flows.bijection import Bijection, BijectionList, PreparedBijection, Report
from acf.flows.prepared import Prepared


class MultiScale(PreparedBijection):
    """Scales one after the other; with factor-out half of the channels leave after each but the last.

    x (B, C, H, W) -> z (B, C*H*W): the channels factored out, first scale first, then the last scale's output
    (arXiv 1605.08803, section 3.6; Residual Flows keep all channels by default).

    Args:
        scales: the bijection of each scale, squeezes included.
        shapes: (C, H, W) of each scale's output.
        factor_out: whether channels leave between scales.
    """

    def __init__(self, scales: list[Bijection], shapes: list[tuple[int, int, int]], factor_out: bool) -> None:
        super().__init__()
        self.scales = BijectionList(scales)
        self.shapes, self.factor_out = shapes, factor_out

    @override
    def forward(self, x: Tensor, prepared: Prepared | None = None) -> tuple[Tensor, Tensor]:
        z, log_abs_det, _ = self.forward_with_features(x, prepared)
        return z, log_abs_det

    def forward_with_features(self, x: Tensor, prepared: Prepared | None) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return (z, log_abs_det, features): those of `forward`, and the output (B, C, H, W) of every scale.

        Of a scale after which channels leave, the features are all channels.
        """
        total = x.new_zeros(len(x))
        left: list[Tensor] = []
        features: list[Tensor] = []
        for index, scale in enumerate(self.scales):
            x, log_abs_det = scale.as_part(x, prepared)
            total = total + log_abs_det
            features.append(x)
            x = self._factor_out(x, index, left)
        return torch.cat([*left, x.flatten(1)], dim=1), total, features

    @override
    def transform(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.transform_with_features(x, condition)[0]

    def transform_with_features(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Return (z, features), as `forward_with_features` without the cost of the log-determinant."""
        left: list[Tensor] = []
        features: list[Tensor] = []
        for index, scale in enumerate(self.scales):
            x = scale.transform(x, condition)
            features.append(x)
            x = self._factor_out(x, index, left)
        return torch.cat([*left, x.flatten(1)], dim=1), features

    @override
    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        return self.inverse_with_report(y, condition)[0]

    @override
    def inverse_with_report(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Report]:
        sizes = [c // 2 * h * w if self._factors_out(i) else 0 for i, (c, h, w) in enumerate(self.shapes[:-1])]
        *left, x = y.split([*sizes, y.shape[1] - sum(sizes)], dim=1)
        x = x.reshape(len(y), *self.shapes[-1])
        report = Report()
        for index, scale in reversed(list(enumerate(self.scales))):
            channels, height, width = self.shapes[index]
            if self._factors_out(index):
                x = torch.cat([x, left[index].reshape(len(y), channels // 2, height, width)], dim=1)
            x, solved = scale.inverse_with_report(x, condition)
            report = report.merged(solved)
        return x, report

    def _factor_out(self, x: Tensor, index: int, left: list[Tensor]) -> Tensor:
        """Append the channels that leave after scale `index` to `left`, flattened, and return the others."""
        if not self._factors_out(index):
            return x
        x, out = x.chunk(2, dim=1)
        left.append(out.flatten(1))
        return x

    def _factors_out(self, index: int) -> bool:
        return self.factor_out and index < len(self.shapes) - 1
