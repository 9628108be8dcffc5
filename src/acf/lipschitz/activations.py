"""Activations with a proven bound of the slope."""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from acf.lipschitz.effective import Described, Description, Scalar
from acf.lipschitz.kernels.fused import fused
from acf.lipschitz.kernels.scratch import empty_like, out_like
from acf.lipschitz.layer import VJP, LipschitzLayer, Pullback, Tensors

# max over x of d/dx [x sigmoid(x)], attained at x = 2.39935...; the last digit is rounded up.
SWISH_SLOPE = 1.0998393202


class Activation(LipschitzLayer):
    """Base of activations, which act elementwise or make several channels of one.

    Attributes:
        widening: number of output channels per input channel.
    """

    widening = 1
    supports_bfloat16 = True


class ScaledActivation(Activation, Described):
    """Base of activations outer * core(inner * x), where inner = b = softplus(beta) is learnt.

    With outer = 1 / (divisor * b) the slopes do not depend on b. Both scales are 1-element tensors of their own in
    `effective_tensors`, so that linear maps before and after can absorb them
    (`acf.lipschitz.branch.Branch.described_tensors`); an empty tuple stands for a scale that was absorbed.

    Args:
        beta: its value at the start.

    Attributes:
        divisor: what outer * b is the reciprocal of, at least the largest norm of the core's slopes.
    """

    divisor = 1.0

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(beta))

    @abstractmethod
    def core(self, u: Tensor) -> Tensor:
        """Return the core of u, differentiable."""

    @abstractmethod
    def core_and_vjp(self, u: Tensor, scales: Tensors, dtype: torch.dtype) -> tuple[Tensor, VJP]:
        """Return the core of u, and v -> J^T v times both scales, for v of type `dtype`, which may be overwritten."""

    @abstractmethod
    def core_jvp_and_pullback(self, z: Tensor) -> tuple[Tensor, VJP]:
        """Return [core(u); J du] for z = [u; du], which is not changed, and its pullback."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        inner, outer = self.effective_tensors()
        return self.core(inner * x) * outer

    @override
    def effective_tensors(self) -> Tensors:
        """Return (inner, outer)."""
        return self._scales(self.beta)

    @override
    def described_tensors(self) -> Description:
        """Describe `effective_tensors`."""
        return Scalar(self._scales, self.beta, 0), Scalar(self._scales, self.beta, 1)

    @classmethod
    def _scales(cls, beta: Tensor) -> tuple[Tensor, Tensor]:
        b = _bounded_softplus(beta)
        return b, 1 / (cls.divisor * b)

    @override
    def value_and_vjp(self, x: Tensor, tensors: Tensors, dtype: torch.dtype) -> tuple[Tensor, VJP]:
        inner, outer = tensors
        core, vjp = self.core_and_vjp(scaled(x, inner), (inner, outer), dtype)
        return scaled(core, outer), vjp

    @override
    def jvp_and_pullback(self, z: Tensor, tensors: Tensors) -> tuple[Tensor, Pullback]:
        inner, outer = tensors
        core, core_pullback = self.core_jvp_and_pullback(scaled(z, inner))

        def pullback(v: Tensor) -> tuple[Tensor, Tensors]:
            of_outer = _of_scale(v, core, outer)
            of_u = core_pullback(scaled(v, outer))
            return scaled(of_u, inner), (_of_scale(of_u, z, inner), of_outer)

        return scaled(core, outer), pullback


class Swish(ScaledActivation):
    """Base of scaled activations whose core is linear in silu(u) = u sigmoid(u) and u."""

    def __init__(self) -> None:
        super().__init__(0.5)

    @override
    def core(self, u: Tensor) -> Tensor:
        return self._of_silu(F.silu(u), u)

    @override
    def core_and_vjp(self, u: Tensor, scales: Tensors, dtype: torch.dtype) -> tuple[Tensor, VJP]:
        y, slope = _silu_and_slope(u)
        if dtype != slope.dtype:
            slope = empty_like(slope, dtype).copy_(slope)
        return self._of_silu(y, u), self._silu_vjp(slope, *scales)

    @override
    def core_jvp_and_pullback(self, z: Tensor) -> tuple[Tensor, VJP]:
        y, silu_pullback = _silu_jvp_and_pullback(z)

        def pullback(v: Tensor) -> Tensor:
            of_silu, of_input = self._silu_cotangents(v)
            of_u = silu_pullback(of_silu)
            return of_u if of_input is None else of_u.add_(of_input)

        return self._of_silu(y, z), pullback

    def _of_silu(self, y: Tensor, u: Tensor) -> Tensor:
        """The core, linear in y = silu(u) and u."""
        return y

    def _silu_cotangents(self, v: Tensor) -> tuple[Tensor, Tensor | None]:
        """The cotangents of y and u, for a cotangent v of the core; None for zeros."""
        return v, None

    def _silu_vjp(self, slope: Tensor, *scales: Tensor | tuple[()]) -> VJP:
        """v -> the adjoint of du -> core(slope * du, du) applied to v, times the scales; may overwrite the slope."""
        for scale in scales:
            slope = scaled(slope, scale)
        return lambda v: v.mul_(first_samples(slope, v))


def _bounded_softplus(beta: Tensor) -> Tensor:
    """softplus(beta) within [1e-6, 1e6], where x sigmoid(b x) / b neither overflows nor loses its digits."""
    return F.softplus(beta).clamp(1e-6, 1e6)


def scaled(x: Tensor, scale: Tensor | tuple[()]) -> Tensor:
    """Return scale * x, or x for an absorbed scale."""
    return x * scale if isinstance(scale, Tensor) else x


def first_samples(slope: Tensor, v: Tensor) -> Tensor:
    """Return the slopes of the samples of v, which are the first ones."""
    return slope if slope.shape[0] == v.shape[0] else slope[: v.shape[0]]


def _of_scale(v: Tensor, x: Tensor, scale: Tensor | tuple[()]) -> Tensor | tuple[()] | None:
    """The cotangent of the scale in scale * x."""
    if not isinstance(scale, Tensor):
        return ()
    return (v * x).sum().view(scale.shape) if scale.requires_grad else None


@fused
def _silu_and_slope(u: Tensor) -> tuple[Tensor, Tensor]:
    """silu(u) = u s and silu'(u) = s + s (u - u s) with s = sigmoid(u)."""
    s = torch.sigmoid(u, out=out_like(u))
    y = torch.mul(u, s, out=out_like(u))
    return y, s.addcmul_(s, torch.sub(u, y, out=out_like(u)))


def _silu_jvp_and_pullback(z: Tensor) -> tuple[Tensor, VJP]:
    """[u; du] -> [silu(u); silu'(u) du] with its pullback; few passes over memory count more than few operations."""
    if z.is_cuda:
        return _silu_jvp(z), lambda v: _silu_jvp_vjp(z, v)
    u, du = z.chunk(2)
    out = empty_like(z)
    y, dy = out.chunk(2)
    s = torch.sigmoid(u, out=out_like(u))
    torch.mul(u, s, out=y)
    slope = torch.addcmul(s, s, torch.sub(u, y, out=out_like(u)), out=out_like(u))
    torch.mul(slope, du, out=dy)

    def pullback(v: Tensor) -> Tensor:
        of_y, of_dy = v.chunk(2)
        of_z = empty_like(z)
        of_u, of_du = of_z.chunk(2)
        # silu'' = silu' + s - 2 s silu', times du
        bend = torch.addcmul(s, s, slope, value=-2, out=out_like(s)).add_(slope).mul_(du)
        torch.mul(of_dy, slope, out=of_du)
        torch.mul(of_y, slope, out=of_u).addcmul_(of_dy, bend)
        return of_z

    return out, pullback


@fused
def _silu_jvp(z: Tensor) -> Tensor:
    u, du = z.chunk(2)
    s = torch.sigmoid(u)
    y = u * s
    return torch.cat([y, (s + s * (u - y)) * du])


@fused
def _silu_jvp_vjp(z: Tensor, v: Tensor) -> Tensor:
    (u, du), (of_y, of_dy) = z.chunk(2), v.chunk(2)
    s = torch.sigmoid(u)
    slope = s + s * (u - u * s)
    bend = slope + s - 2 * s * slope
    return torch.cat([of_y * slope + of_dy * bend * du, of_dy * slope])


class LipSwish(Swish):
    """x sigmoid(b x) / 1.1 with b = softplus(beta) learnt (arXiv 1906.02735, section 3.3).

    The slope does not depend on b: x sigmoid(b x) = silu(b x) / b. Its largest value is 1.09984 / 1.1 < 1.
    """

    divisor = 1.1

    @override
    def lipschitz_bound(self, n_tokens: int | None = None) -> float:
        return SWISH_SLOPE / 1.1


class ELU(Activation):
    """x for x > 0, exp(x) - 1 otherwise; the slope lies in (0, 1]."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        return F.elu(x)

    @override
    def value_and_vjp(self, x: Tensor, tensors: Tensors, dtype: torch.dtype) -> tuple[Tensor, VJP]:
        y = F.elu(x)
        slope = (y.clamp_max(0) + 1).to(dtype)
        return y, lambda v: v.mul_(first_samples(slope, v))

    @override
    def jvp_and_pullback(self, z: Tensor, tensors: Tensors) -> tuple[Tensor, Pullback]:
        x, dx = z.chunk(2)
        y = F.elu(x)
        slope = y.clamp_max(0) + 1

        def pullback(v: Tensor) -> tuple[Tensor, Tensors]:
            of_y, of_dy = v.chunk(2)
            bend = torch.where(x < 0, slope, 0) * dx
            return torch.cat([torch.addcmul(of_y * slope, of_dy, bend), of_dy * slope]), ()

        return torch.cat([y, slope * dx]), pullback

    @override
    def lipschitz_bound(self, n_tokens: int | None = None) -> float:
        return 1.0


# max over x of |(swish'(x), swish'(-x))| with swish'(-x) = 1 - swish'(x): sqrt(s^2 + (1 - s)^2) at the largest s.
PAIR_SLOPE = (SWISH_SLOPE**2 + (SWISH_SLOPE - 1) ** 2) ** 0.5


class CLipSwish(Swish):
    """x -> [LipSwish(x) ; LipSwish(-x)] / 1.004 along dimension 1 (arXiv 2102.02694, section 3.3): twice the channels.

    Each x enters two outputs, with slopes s / 1.1 and (s - 1) / 1.1 where -0.09984 <= s <= 1.09984, so the norm is at
    most sqrt(1.09984^2 + 0.09984^2) / 1.1 = 1.00396 before the division.
    """

    widening = 2
    divisor = 1.1 * 1.004

    @override
    def _of_silu(self, y: Tensor, u: Tensor) -> Tensor:
        """silu(-u) = silu(u) - u saves the second exponential."""
        return torch.cat([y, y - u], 1)

    @override
    def _silu_cotangents(self, v: Tensor) -> tuple[Tensor, Tensor | None]:
        a, b = v.chunk(2, 1)
        return a + b, -b

    @override
    def _silu_vjp(self, slope: Tensor, *scales: Tensor | tuple[()]) -> VJP:
        inner, outer = scales

        def vjp(v: Tensor) -> Tensor:
            a, b = v.chunk(2, 1)
            return scaled(scaled(torch.add(a, b).mul_(first_samples(slope, v)).sub_(b), inner), outer)

        return vjp

    @override
    def lipschitz_bound(self, n_tokens: int | None = None) -> float:
        return PAIR_SLOPE / (1.1 * 1.004)
