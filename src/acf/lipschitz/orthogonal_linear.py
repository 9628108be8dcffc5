"""Dense layer all of whose singular values stay at its coefficient."""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from acf.lipschitz.bounds.norms import matrix_norm_bound
from acf.lipschitz.kernels.power_iteration import groups_of_equal_shapes, iterate_singular_vectors, stacked_estimates
from acf.lipschitz.normalised import ABOVE
from acf.lipschitz.normalised_linear import NormalisedLinear
from acf.lipschitz.precision import autocast_off


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

    @classmethod
    @override
    def move_weights(cls, layers: Sequence[Self]) -> None:
        """Move the weights to the nearest matrices all of whose singular values are the coefficient."""
        for group in groups_of_equal_shapes(layers):
            with autocast_off(group[0].weight.device.type):
                weights = torch.stack([layer.weight for layer in group])
                isometries = nearest_isometry(weights, stacked_estimates(group, weights)).unbind()
                torch._foreach_copy_([layer.weight for layer in group], isometries)
                torch._foreach_mul_([layer.weight for layer in group], [ABOVE * layer.coefficient for layer in group])
        iterate_singular_vectors(layers, 1)


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
