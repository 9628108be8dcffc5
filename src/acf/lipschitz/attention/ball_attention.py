"""Attention on clipped tokens, whose features have closed-form derivatives."""

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from acf.lipschitz.attention.ball import clip_to_ball
from acf.lipschitz.attention.kernel import FeaturesVJP, KernelSelfAttention


class BallSelfAttention(KernelSelfAttention):
    """Q, K and V are the projections, each clipped to a ball and multiplied by a factor."""

    @abstractmethod
    def radii_and_factors(self, scales: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the radii of the balls of queries, keys and values, and the factors: (3, 1, heads, 1, 1) each."""

    @override
    def features(self, projected: Sequence[Tensor], scales: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        radii, factors = self.radii_and_factors(scales)
        q, k, v = (clip_to_ball(x, r) * f for x, r, f in zip(projected, radii, factors, strict=True))
        return q, k, v

    @override
    def features_and_vjp(self, projected: Tensor, scales: Sequence[Tensor]) -> tuple[Sequence[Tensor], FeaturesVJP]:
        radii, factors = self.radii_and_factors(scales)
        shrink, radial = _shrink_and_radial(projected, radii)
        shrink = shrink * factors

        def vjp(cotangents: Sequence[Tensor]) -> Tensor:
            samples, product = len(cotangents[0]), torch.stack(tuple(cotangents))
            return _tangential(product, radial[:, :samples]) * shrink[:, :samples]

        return (projected * shrink).unbind(), vjp

    @override
    def features_and_jvp(
        self, projected: Tensor, tangents: Tensor, scales: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        radii, factors = self.radii_and_factors(scales)
        shrink, radial = _shrink_and_radial(projected, radii)
        shrink = shrink * factors
        return (projected * shrink).unbind(), (_tangential(tangents, radial) * shrink).unbind()


def _shrink_and_radial(x: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Return min(1, r / |x|) (..., 1), and x / |x| where x is clipped and 0 elsewhere (..., d).

    With these the derivative of `clip_to_ball` is the symmetric map dx -> shrink (dx - radial (radial . dx)).
    """
    square, limit = x.square().sum(-1, keepdim=True), radius.square()
    inverse = torch.maximum(square, limit).rsqrt()
    return radius * inverse, x * (inverse * (square > limit))


def _tangential(dx: Tensor, radial: Tensor) -> Tensor:
    """dx without its part along `radial`, a unit vector or zero."""
    return torch.addcmul(dx, radial, (radial * dx).sum(-1, keepdim=True), value=-1)
