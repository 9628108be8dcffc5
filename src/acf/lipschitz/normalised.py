"""Spectrally normalised linear maps: convolution and dense layer with a bounded l2 norm."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from acf.lipschitz.bounds.norms import conv_norm_bound, matrix_norm_bound, torus_norm_bound
from acf.lipschitz.effective import Described, Description, ScaledMap, normalising_factors
from acf.lipschitz.kernels.convolution import arranged
from acf.lipschitz.kernels.layout import in_layout
from acf.lipschitz.kernels.power_iteration import (
    Map,
    convolution_estimates,
    groups_of_equal_shapes,
    iterate_singular_vectors,
    matrix_estimates,
    stacked_convolutions,
    stacked_estimates,
    stacked_matrices,
)
from acf.lipschitz.layer import VJP, Pullback, Tensors
from acf.lipschitz.once_differentiable import is_transformed
from acf.lipschitz.precision import autocast_off, require_full_precision

ABOVE = 1 + 1e-5
"""Factor by which weights that were scaled are left above their coefficient, to which the layer then divides them.

At the coefficient itself rounding would decide whether the division has a gradient, differently on every machine.
"""


class Normalised(Described):
    """Linear map x -> T_W x + b with W scaled down to norm at most `coefficient`.

    The weight used is W / max(1, slack * sigma / coefficient), where sigma = <u, T_W v> is the estimate of |T_W| by
    power iteration (arXiv 1802.05957), differentiated with respect to W, and u, v are updated by `renormalise`.
    An estimate from power iteration is never above the true norm; `slack` >= 1, set by `acf.tighten`, covers the
    difference. `lipschitz_bound` never relies on the estimate.
    """

    supports_bfloat16 = True
    weight: Tensor
    bias: Tensor | None
    left: Tensor
    right: Tensor
    slack: Tensor

    def __init__(self, coefficient: float) -> None:
        super().__init__()
        if not 0 < coefficient <= 1:
            raise ValueError(f"coefficient must lie in (0, 1], got {coefficient}")
        self.coefficient = coefficient
        self.register_buffer("slack", torch.ones(()))

    @abstractmethod
    def value(self, x: Tensor, tensors: Tensors) -> Tensor:
        """Return T_W x + b, differentiable, for the tensors (W, b) or (W,); without b where it is left out."""

    @abstractmethod
    def stacked_maps(self, weights: Tensor) -> tuple[Map, Map]:
        """Return T_W and its adjoint for L weights (L, ...) of this layer's shape, each applied to its own vector."""

    @abstractmethod
    def estimates(self, weights: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Return <u, T_W v> (L,), differentiable in the weights (L, ...), for L pairs u, v (L, ...)."""

    @abstractmethod
    def _norm_bound(self, weight: Tensor) -> float:
        """Proven upper bound of |T_W|."""

    def estimated_norm(self) -> Tensor:
        """Return <u, T_W v>, a lower estimate of the norm of the stored weight: a scalar with gradient."""
        return stacked_estimates([self], self.weight[None])[0]

    def effective_weight(self) -> Tensor:
        """Return the weight in use, of the stored weight's shape."""
        return self.weight * normalising_factors(self.estimated_norm(), self.slack, self.coefficient)

    @override
    def effective_tensors(self) -> Tensors:
        """Return (weight in use, bias), without the latter if there is none."""
        return (self.effective_weight(),) if self.bias is None else (self.effective_weight(), self.bias)

    @override
    def described_tensors(self) -> Description:
        """Describe `effective_tensors`."""
        return ScaledMap(self)

    @override
    def forward(self, x: Tensor) -> Tensor:
        require_full_precision(x, self.weight, type(self).__name__)
        return self.value(x, self.effective_tensors())

    def stored_norm_bound(self) -> float:
        """Return a proven upper bound of the norm of the stored weight, before scaling."""
        return self._norm_bound(self.weight)

    @override
    def lipschitz_bound(self, n_tokens: int | None = None) -> float:
        weight = self.effective_weight().detach()
        return self._norm_bound(weight)

    def renormalise(self, iterations: int = 1) -> None:
        """Update u and v by `iterations` warm-started steps of power iteration.

        For many layers the function `renormalise` is faster, as it stacks those of one shape.
        """
        renormalise([self], iterations)

    @torch.no_grad()
    def _scale_to_coefficient(self, bound: Callable[[], float]) -> None:
        """Scale the fresh weight so that its norm, now at most `bound`, is proven to be at most the coefficient.

        On the meta device there is no weight yet; it has to be loaded.
        """
        if not self.weight.is_meta:
            self.weight.mul_(min(1.0, self.coefficient / bound()))
            iterate_singular_vectors([self], 10)

    @torch.no_grad()
    def converge_norm(self, tolerance: float = 1e-4, max_iterations: int = 1000) -> None:
        """Iterate until ten further steps change the estimate by at most a relative `tolerance`.

        Args:
            tolerance: relative change at which the iteration stops.
            max_iterations: largest number of steps.
        """
        before = float(self.estimated_norm())
        for _ in range(max_iterations // 10):
            iterate_singular_vectors([self], 10)
            now = float(self.estimated_norm())
            if abs(now - before) <= tolerance * abs(now):
                return
            before = now


@torch.no_grad()
def renormalise(layers: Iterable[Normalised], iterations: int) -> None:
    """Update u and v of all layers by power iteration, and the weights of all `OrthogonalLinear`s.

    The latter move to the nearest matrices all of whose singular values are the coefficient.

    Args:
        layers: in any order; layers of one shape are stacked.
        iterations: number of steps, which start from the present u and v.
    """
    layers = list(layers)
    iterate_singular_vectors(layers, iterations)
    orthogonal = [layer for layer in layers if isinstance(layer, OrthogonalLinear)]
    for group in groups_of_equal_shapes(orthogonal):
        with autocast_off(group[0].weight.device.type):
            weights = torch.stack([layer.weight for layer in group])
            isometries = nearest_isometry(weights, stacked_estimates(group, weights)).unbind()
            torch._foreach_copy_([layer.weight for layer in group], isometries)
            torch._foreach_mul_([layer.weight for layer in group], [ABOVE * layer.coefficient for layer in group])
    iterate_singular_vectors(orthogonal, 1)


def _unit_vector(*shape: int) -> Tensor:
    x = torch.randn(1, *shape)
    return x / x.norm()


class NormalisedConv2d(Normalised):
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
        self.register_buffer("right", _unit_vector(in_channels, *vector_size))
        self._scale_to_coefficient(lambda: torus_norm_bound(self.weight, *size))

    @override
    def value(self, x: Tensor, tensors: Tensors) -> Tensor:
        weight, *bias = tensors
        if torch.is_grad_enabled() or is_transformed(x):
            return F.conv2d(x, weight, bias[0] if bias else None, padding=weight.shape[-1] // 2)
        size = x.shape[2:]
        convolution = arranged(weight, *size)
        y = convolution.apply(in_layout(x, False, convolution.takes_rows, size), *bias)
        return in_layout(y, convolution.gives_rows, False, size)

    @override
    def value_and_vjp(self, x: Tensor, tensors: Tensors, dtype: torch.dtype) -> tuple[Tensor, VJP]:
        size = x.shape[2:]
        y, rows, vjp = self.value_and_vjp_in(x, False, size, tensors, dtype)
        return in_layout(y, rows, False, size), lambda v: vjp(in_layout(v, False, rows, size))

    @override
    def jvp_and_pullback(self, z: Tensor, tensors: Tensors) -> tuple[Tensor, Pullback]:
        size = z.shape[2:]
        y, rows, pullback = self.jvp_and_pullback_in(z, False, size, tensors)
        return in_layout(y, rows, False, size), lambda u: pullback(in_layout(u, False, rows, size))

    def value_and_vjp_in(
        self, x: Tensor, rows: bool, size: Sequence[int], tensors: Tensors, dtype: torch.dtype
    ) -> tuple[Tensor, bool, VJP]:
        """Return `value_and_vjp` for x in either layout (`acf.lipschitz.kernels.layout`), without changing it.

        Args:
            x: maps, or rows.
            rows: whether x is rows.
            size: (H, W) of the maps.
            tensors: as for `value_and_vjp`.
            dtype: as for `value_and_vjp`.

        Returns:
            The value, whether it is rows, and the vjp, from cotangents in the value's layout to those in x's.
        """
        weight, *bias = tensors
        convolution = arranged(weight, *size)
        y = convolution.apply(in_layout(x, rows, convolution.takes_rows, size), *bias)
        if dtype != weight.dtype:
            convolution = arranged(weight.to(dtype), *size)
        takes_rows = convolution.takes_rows
        if takes_rows == rows:
            return y, convolution.gives_rows, convolution.adjoint
        return y, convolution.gives_rows, lambda v: in_layout(convolution.adjoint(v), takes_rows, rows, size)

    def jvp_and_pullback_in(
        self, z: Tensor, rows: bool, size: Sequence[int], tensors: Tensors
    ) -> tuple[Tensor, bool, Pullback]:
        """Return `jvp_and_pullback` for z in either layout, as `value_and_vjp_in` does."""
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
        self.register_buffer("right", _unit_vector(in_features))
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


class OrthogonalLinear(NormalisedLinear):
    """Dense layer (..., in) -> (..., out) whose weight `renormalise` moves to the nearest with equal singular values.

    Spectral normalisation alone limits the largest singular value only. Steps of an optimiser that are large against
    the weight leave one large value and many small ones, and then the layer shrinks almost all inputs; here all
    singular values stay at `coefficient`. Between a step of the optimiser and `renormalise`, and for averaged weights,
    it acts as a `NormalisedLinear`, with the same bound.

    A weight of zeros, as output layers may start with, stays zero until a step of an optimiser gives it directions; the
    next `renormalise` then brings these to `coefficient`.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, coefficient: float = 0.98) -> None:
        super().__init__(in_features, out_features, bias, coefficient)
        with torch.no_grad():
            nn.init.orthogonal_(self.weight)
        self._scale_to_coefficient(lambda: matrix_norm_bound(self.weight))


def nearest_isometry(weight: Tensor, norm: Tensor, iterations: int = 10) -> Tensor:
    """Return U V^T of matrices with singular value decompositions U S V^T, by the Newton-Schulz iteration.

    Each step maps the singular values by s -> (3 s - s^3) / 2, which converges to 1 for 0 < s < sqrt(3); those below
    about 0.03 of the norm are not there yet after ten, and zeros stay zeros.

    Args:
        weight: matrices (..., out, in).
        norm: lower estimates (...) of their norms. Where one is so low that the iteration might diverge, the matrix is
            scaled down by a bound of its norm, the square root of the largest row sum of |X^T X|.
        iterations: number of steps.
    """
    wide = weight.shape[-2] < weight.shape[-1]
    x = (weight.mT if wide else weight).flatten(0, -3) if weight.dim() > 2 else (weight.mT if wide else weight)[None]
    norm = torch.maximum(norm.view(-1), x.abs().amax((-2, -1))).clamp_min(torch.finfo(x.dtype).tiny)
    x = x / (1.25 * norm)[..., None, None]
    square_bound = torch.bmm(x.mT, x).abs().sum(-1).amax(-1)
    x = x / (square_bound / 3).sqrt().clamp_min(1.0)[..., None, None]
    for _ in range(iterations):
        x = torch.baddbmm(x, x, torch.bmm(x.mT, x), beta=1.5, alpha=-0.5)
    return (x.mT if wide else x).reshape(weight.shape)
