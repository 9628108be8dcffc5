"""Spectrally normalised linear maps: what those with a bounded l2 norm have in common."""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Self

import torch
from torch import Tensor
from typing_extensions import override

from acf.lipschitz.effective import Described, Description, ScaledMap, normalising_factors
from acf.lipschitz.kernels.power_iteration import Map, iterate_singular_vectors, stacked_estimates
from acf.lipschitz.layer import Tensors
from acf.lipschitz.precision import require_full_precision

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

    @classmethod
    def move_weights(cls, layers: Sequence[Self]) -> None:
        """Move the weights of layers of this class, once u and v are up to date; here they stay where they are.

        To be called under `torch.no_grad`.
        """

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
    """Update u and v of all layers by power iteration, and the weights of those whose class moves them.

    Args:
        layers: in any order; layers of one shape are stacked.
        iterations: number of steps, which start from the present u and v.
    """
    layers = list(layers)
    iterate_singular_vectors(layers, iterations)
    by_class: dict[type[Normalised], list[Normalised]] = defaultdict(list)
    for layer in layers:
        by_class[type(layer)].append(layer)
    for kind, of_class in by_class.items():
        kind.move_weights(of_class)


def unit_vector(*shape: int) -> Tensor:
    """Return a random vector (1, *shape) of length 1."""
    x = torch.randn(1, *shape)
    return x / x.norm()
