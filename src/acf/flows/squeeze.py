"""Space to channels."""

import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from acf.flows.bijection import Bijection


class Squeeze(Bijection):
    """(B, C, H, W) -> (B, 4C, H/2, W/2): each 2 x 2 square becomes 4 channels (arXiv 1605.08803, section 3.6).

    The values are permuted, so the log-determinant is 0.
    """

    @override
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.transform(x), x.new_zeros(x.shape[0])

    @override
    def transform(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        if x.shape[0] == 0:  # which `pixel_unshuffle` refuses
            channels, height, width = x.shape[1:]
            return x.reshape(0, 4 * channels, height // 2, width // 2)
        return F.pixel_unshuffle(x, 2)

    @override
    def inverse(self, y: Tensor, condition: Tensor | None = None) -> Tensor:
        return F.pixel_shuffle(y, 2)
