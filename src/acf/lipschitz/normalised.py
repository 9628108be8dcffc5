"""Spectrally normalised linear maps: convolution and dense layer with a bounded l2 norm."""

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from acf.lipschitz.norms import conv_norm_bound, matrix_norm_bound, torus_norm_bound


class Normalised(nn.Module, ABC):
    """Linear map x -> T_W x + b with W scaled down to norm at most `coefficient`.

    The weight used is W / max(1, slack * sigma / coefficient), where sigma = <u, T_W v> is the estimate of |T_W| by
    power iteration (arXiv 1802.05957), differentiated with respect to W, and u, v are refreshed by `renormalise`.
    An estimate from power iteration is never above the true norm; `slack` >= 1, set by `acf.flows.certificate.tighten`,
    covers the difference. `lipschitz_bound` never relies on the estimate.
    """

    weight: Tensor
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
    def _apply_map(self, weight: Tensor, x: Tensor) -> Tensor:
        """T_W x without the bias."""

    @abstractmethod
    def _apply_adjoint(self, weight: Tensor, y: Tensor) -> Tensor:
        """The adjoint of T_W applied to y."""

    @abstractmethod
    def _norm_bound(self, weight: Tensor) -> float:
        """Proven upper bound of |T_W|."""

    def estimated_norm(self) -> Tensor:
        """Estimate <u, T_W v> of the norm of the stored weight, a scalar with gradient."""
        return (self.left * self._apply_map(self.weight, self.right)).sum()

    def effective_weight(self) -> Tensor:
        """Return the weight in use, of the stored weight's shape."""
        return self.weight / (self.slack * self.estimated_norm() / self.coefficient).clamp_min(1.0)

    def stored_bound(self) -> float:
        """Proven upper bound of the norm of the stored weight, before scaling."""
        return self._norm_bound(self.weight)

    def lipschitz_bound(self, n_tokens: int | None = None) -> float:
        """Proven upper bound of the norm of the map in use; `n_tokens` plays no part."""
        weight = self.effective_weight().detach()
        return self._norm_bound(weight)

    def renormalise(self, iterations: int = 1) -> None:
        """Refresh u and v by `iterations` warm-started steps of power iteration."""
        self._iterate(iterations)

    @torch.no_grad()
    def _iterate(self, iterations: int) -> None:
        for _ in range(iterations):
            self.left.copy_(_unit(self._apply_map(self.weight, self.right)))
            pulled = self._apply_adjoint(self.weight, self.left)
            # A weight of zeros must not leave a vector of zeros, from which the iteration would never come back.
            self.right.copy_(torch.where(pulled.norm() > 0, _unit(pulled), self.right))

    @torch.no_grad()
    def _start(self, bound: float) -> None:
        """Scale the fresh weight so that its norm, now at most `bound`, is proven to be at most the coefficient."""
        self.weight.mul_(min(1.0, self.coefficient / bound))
        self._iterate(10)

    @torch.no_grad()
    def converge_norm(self, tolerance: float = 1e-4, most: int = 1000) -> None:
        """Iterate until ten further steps change the estimate by less than `tolerance`, at most `most` steps."""
        before = float(self.estimated_norm())
        for _ in range(most // 10):
            self._iterate(10)
            now = float(self.estimated_norm())
            if abs(now - before) <= tolerance * abs(now):
                return
            before = now


def _unit(x: Tensor) -> Tensor:
    return x / x.norm().clamp_min(torch.finfo(x.dtype).tiny)


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
        self.padding = kernel // 2
        self.register_buffer("left", torch.zeros(1, out_channels, *size))
        self.register_buffer("right", _unit(torch.randn(1, in_channels, *size)))
        self._start(torus_norm_bound(self.weight, *size))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H, W)."""
        return F.conv2d(x, self.effective_weight(), self.bias, padding=self.padding)

    def _apply_map(self, weight: Tensor, x: Tensor) -> Tensor:
        return F.conv2d(x, weight, padding=self.padding)

    def _apply_adjoint(self, weight: Tensor, y: Tensor) -> Tensor:
        return F.conv_transpose2d(y, weight, padding=self.padding)

    def _norm_bound(self, weight: Tensor) -> float:
        return conv_norm_bound(weight, *self.size)

    def extra_repr(self) -> str:
        """Sizes and coefficient."""
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
        self.bias: Any = layer.bias
        self.register_buffer("left", torch.zeros(1, out_features))
        self.register_buffer("right", _unit(torch.randn(1, in_features)))
        self._start(matrix_norm_bound(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        return F.linear(x, self.effective_weight(), self.bias)

    def _apply_map(self, weight: Tensor, x: Tensor) -> Tensor:
        return x @ weight.T

    def _apply_adjoint(self, weight: Tensor, y: Tensor) -> Tensor:
        return y @ weight

    def _norm_bound(self, weight: Tensor) -> float:
        return matrix_norm_bound(weight)

    def extra_repr(self) -> str:
        """Sizes and coefficient."""
        out_features, in_features = self.weight.shape
        return f"{in_features}, {out_features}, coefficient={self.coefficient}"


class OrthogonalLinear(NormalisedLinear):
    """Dense layer (..., in) -> (..., out) whose weight `renormalise` moves to the nearest with equal singular values.

    Spectral normalisation only holds the largest singular value down. Steps of an optimiser that are large against the
    weight leave one large value and many small ones, and then hardly anything passes; here all stay at `coefficient`.
    Before `renormalise` and for averaged weights it is a `NormalisedLinear`, with the same bound.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, coefficient: float = 0.98) -> None:
        super().__init__(in_features, out_features, bias, coefficient)
        with torch.no_grad():
            nn.init.orthogonal_(self.weight)
        self._start(matrix_norm_bound(self.weight))

    @torch.no_grad()
    def renormalise(self, iterations: int = 1) -> None:
        """Replace the weight by coefficient * U V^T, U S V^T its singular value decomposition, then refresh u and v."""
        self._iterate(iterations)
        self.weight.copy_(self.coefficient * nearest_isometry(self.weight, self.estimated_norm()))
        self._iterate(1)


def nearest_isometry(weight: Tensor, norm: Tensor, iterations: int = 10) -> Tensor:
    """U V^T of a matrix with singular value decomposition U S V^T, by the Newton-Schulz iteration.

    Each step maps the singular values by s -> (3 s - s^3) / 2, which converges to 1 for 0 < s < sqrt(3); those below
    about 0.03 of the norm are not there yet after ten.

    Args:
        weight: matrix.
        norm: estimate of its norm, at least half of it.
        iterations: number of steps.
    """
    wide = weight.shape[0] < weight.shape[1]
    x = (weight.T if wide else weight) / (1.25 * norm)
    for _ in range(iterations):
        x = 1.5 * x - 0.5 * x @ (x.T @ x)
    return x.T if wide else x
