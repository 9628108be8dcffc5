"""Spectrally normalised convolution."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from acf.lipschitz.bounds.norms import conv_norm_bound, torus_norm_bound
from acf.lipschitz.either_layout import EitherLayout
from acf.lipschitz.kernels.convolution import arranged
from acf.lipschitz.kernels.layout import in_layout
from acf.lipschitz.kernels.power_iteration import (
    Map,
    convolution_estimates,
    matrix_estimates,
    stacked_convolutions,
    stacked_matrices,
)
from acf.lipschitz.layer import VJP, Pullback, Tensors
from acf.lipschitz.normalised import Normalised, unit_vector
from acf.lipschitz.once_differentiable import is_transformed


class NormalisedConv2d(EitherLayout, Normalised):
    """Convolution (B, in, H, W) -> (B, out, H, W), stride 1, zero padding, odd kernel, norm at most `coefficient`.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: side of the square kernel, odd.
        size: (H, W) of the maps; the norm depends on it.
        coefficient: largest norm allowed.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        size: tuple[int, int],
        coefficient: float = 0.98,
    ) -> None:
        super().__init__(coefficient)
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {kernel}")
        self.size = size
        layer = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
        self.weight, self.bias = layer.weight, layer.bias
        # A 1x1 convolution applies one matrix at all positions, so u and v of one position suffice.
        vector_size = size if kernel > 1 else (1, 1)
        self.register_buffer("left", torch.zeros(1, out_channels, *vector_size))
        self.register_buffer("right", unit_vector(in_channels, *vector_size))
        self._scale_to_coefficient(lambda: torus_norm_bound(self.weight, *size))

    @override
    def value(self, x: Tensor, tensors: Tensors) -> Tensor:
        weight, *bias = tensors
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or is_transformed(x):
            return F.conv2d(x, weight, bias[0] if bias else None, padding=weight.shape[-1] // 2)
        size = x.shape[2:]
        convolution = arranged(weight, *size)
        y = convolution.apply(in_layout(x, False, convolution.takes_rows, size), *bias)
        return in_layout(y, convolution.gives_rows, False, size)

    @override
    def value_and_vjp_in(
        self, x: Tensor, rows: bool, size: Sequence[int], tensors: Tensors, dtype: torch.dtype
    ) -> tuple[Tensor, bool, VJP]:
        weight, *bias = tensors
        convolution = arranged(weight, *size)
        y = convolution.apply(in_layout(x, rows, convolution.takes_rows, size), *bias)
        if dtype != weight.dtype:
            convolution = arranged(weight.to(dtype), *size)
        takes_rows = convolution.takes_rows
        if takes_rows == rows:
            return y, convolution.gives_rows, convolution.adjoint
        return y, convolution.gives_rows, lambda v: in_layout(convolution.adjoint(v), takes_rows, rows, size)

    @override
    def jvp_and_pullback_in(
        self, z: Tensor, rows: bool, size: Sequence[int], tensors: Tensors
    ) -> tuple[Tensor, bool, Pullback]:
        weight, *bias = tensors
        convolution = arranged(weight, *size)
        z = in_layout(z, rows, convolution.takes_rows, size)
        y, gives_rows = convolution.apply(z), convolution.gives_rows
        values = y.shape[0] // 2
        if bias:
            y[:values].add_(bias[0] if gives_rows else bias[0].view(-1, 1, 1))

        def pullback(u: Tensor) -> tuple[Tensor, Tensors]:
            of_weight = convolution.weight_gradient(z, u) if weight.requires_grad else None
            positions = 0 if gives_rows else (0, 2, 3)
            of_bias = [u[:values].sum(positions) if b.requires_grad else None for b in bias]
            of_z = in_layout(convolution.adjoint(u), convolution.takes_rows, rows, size)
            return of_z, (of_weight, *of_bias)

        return y, gives_rows, pullback

    @override
    def intermediate_values(self, positions: int) -> int:
        """Return the number of values of the input or of the output, whichever is larger."""
        return max(self.weight.shape[:2]) * positions

    @override
    def stacked_maps(self, weights: Tensor) -> tuple[Map, Map]:
        if weights.shape[-1] == 1:
            return stacked_matrices(weights.flatten(2))
        return stacked_convolutions(weights, self.size)

    @override
    def estimates(self, weights: Tensor, left: Tensor, right: Tensor) -> Tensor:
        if weights.shape[-1] == 1:
            return matrix_estimates(weights.flatten(2), left.flatten(1), right.flatten(1))
        return convolution_estimates(weights, left, right)

    @override
    def _norm_bound(self, weight: Tensor) -> float:
        return conv_norm_bound(weight, *self.size)

    @override
    def extra_repr(self) -> str:
        out_channels, in_channels, kernel, _ = self.weight.shape
        return f"{in_channels}, {out_channels}, kernel={kernel}, size={self.size}, coefficient={self.coefficient}"
