"""Spectrally normalised dense layer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from acf.lipschitz.bounds.norms import matrix_norm_bound
from acf.lipschitz.kernels.power_iteration import Map, matrix_estimates, stacked_matrices
from acf.lipschitz.layer import VJP, Pullback, Tensors
from acf.lipschitz.normalised import Normalised, unit_vector


class NormalisedLinear(Normalised):
    """Dense layer (..., in) -> (..., out) with spectral norm at most `coefficient`.

    Args:
        in_features: size of the last dimension of the input.
        out_features: size of the last dimension of the output.
        bias: whether a bias is added.
        coefficient: largest norm allowed.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, coefficient: float = 0.98) -> None:
        super().__init__(coefficient)
        layer = nn.Linear(in_features, out_features, bias=bias)
        self.weight = layer.weight
        self.bias = layer.bias
        self.register_buffer("left", torch.zeros(1, out_features))
        self.register_buffer("right", unit_vector(in_features))
        self._scale_to_coefficient(lambda: matrix_norm_bound(self.weight))

    @override
    def value(self, x: Tensor, tensors: Tensors) -> Tensor:
        return F.linear(x, *tensors)

    @override
    def value_and_vjp(self, x: Tensor, tensors: Tensors, dtype: torch.dtype) -> tuple[Tensor, VJP]:
        weight = tensors[0].to(dtype)
        return self.value(x, tensors), lambda v: v @ weight

    @override
    def jvp_and_pullback(self, z: Tensor, tensors: Tensors) -> tuple[Tensor, Pullback]:
        weight, *bias = tensors
        samples = z.shape[0] // 2
        y = F.linear(z, weight)
        if bias:
            y[:samples].add_(bias[0])

        def pullback(u: Tensor) -> tuple[Tensor, Tensors]:
            rows = u.flatten(0, -2) if u.dim() > 2 else u
            of_weight = rows.t() @ (z.flatten(0, -2) if z.dim() > 2 else z) if weight.requires_grad else None
            of_bias = [u[:samples].flatten(0, -2).sum(0) if b.requires_grad else None for b in bias]
            return u @ weight, (of_weight, *of_bias)

        return y, pullback

    @override
    def stacked_maps(self, weights: Tensor) -> tuple[Map, Map]:
        return stacked_matrices(weights)

    @override
    def estimates(self, weights: Tensor, left: Tensor, right: Tensor) -> Tensor:
        return matrix_estimates(weights, left, right)

    @override
    def _norm_bound(self, weight: Tensor) -> float:
        return matrix_norm_bound(weight)

    @override
    def extra_repr(self) -> str:
        out_features, in_features = self.weight.shape
        return f"{in_features}, {out_features}, coefficient={self.coefficient}"
