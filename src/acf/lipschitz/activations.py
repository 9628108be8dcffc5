"""Activations with a proven bound of the slope."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from acf.lipschitz.effective import Described, Description, Scalar
from acf.lipschitz.kernels.scratch import empty_like
from acf.lipschitz.layer import VJP, LipschitzLayer, Tensors
from acf.lipschitz.once_differentiable import VALUE_AND_JVP_ONCE, OnceDifferentiable

# max over x of d/dx [x sigmoid(x)], attained at x = 2.39935...; the last digit is rounded up.
SWISH_SLOPE = 1.0998393202


class Activation(LipschitzLayer):
    """Base of activations, which act elementwise or make several channels of one.

    Attributes:
        widening: number of output channels per input channel.
    """

    widening = 1
    supports_bfloat16 = True


class Swish(Activation, Described):
    """Base of activations outer * core(inner * x), where core is made of silu(u) = u sigmoid(u).

    With b = softplus(beta) learnt, inner = b and outer = 1 / (divisor * b). Both scales are 1-element tensors of their
    own in `effective_tensors`, so that linear maps before and after can absorb them
    (`acf.lipschitz.branch.Branch.described_tensors`); an empty tuple stands for a scale that was absorbed.

    Attributes:
        divisor: what outer * b is the reciprocal of, at least the largest slope of the core.
    """

    divisor = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(0.5))

    @override
    def forward(self, x: Tensor) -> Tensor:
        inner, outer = self.effective_tensors()
        u = inner * x
        return self._core(F.silu(u), u) * outer

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
        u = _scaled(x, inner)
        s = torch.sigmoid(u, out=empty_like(u))
        y = torch.mul(u, s, out=empty_like(u))
        value = _scaled(self._core(y, u), outer)
        slope = s.addcmul_(s, u.sub_(y))
        if dtype != s.dtype:
            slope = empty_like(s, dtype).copy_(s)
        return value, lambda v: _scaled(_scaled(self._core_adjoint(v, slope[: len(v)]), inner), outer)

    @override
    def value_and_jvp(self, z: Tensor, tensors: Tensors) -> Tensor:
        inner, outer = tensors
        u = _scaled(z, inner)
        return _scaled(self._core(_SiluValueAndJVP.apply(u), u), outer)

    def _core(self, y: Tensor, u: Tensor) -> Tensor:
        """The core, linear in y = silu(u) and u."""
        return y

    def _core_adjoint(self, v: Tensor, slope: Tensor) -> Tensor:
        """The adjoint of du -> core(slope * du, du) applied to v, which may be overwritten."""
        return v.mul_(slope)


def _bounded_softplus(beta: Tensor) -> Tensor:
    """softplus(beta) within [1e-6, 1e6], where x sigmoid(b x) / b neither overflows nor loses its digits."""
    return F.softplus(beta).clamp(1e-6, 1e6)


def _scaled(x: Tensor, scale: Tensor | tuple[()]) -> Tensor:
    return x * scale if isinstance(scale, Tensor) else x


class _SiluValueAndJVP(OnceDifferentiable):
    """[u; du] -> [silu(u); silu'(u) du], differentiable once; few passes over memory count more than few operations.

    With s = sigmoid(u), y = u s and t = u - y: silu' = s + s t and silu'' = s (1 - s) (2 - (u - 2 t)).
    """

    advice = VALUE_AND_JVP_ONCE

    @staticmethod
    @override
    def forward(ctx: Any, z: Tensor) -> Tensor:
        u, du = z.chunk(2)
        out = empty_like(z)
        y, dy = out.chunk(2)
        s = torch.sigmoid(u, out=empty_like(u))
        torch.mul(u, s, out=y)
        t = torch.sub(u, y, out=empty_like(u))
        slope = torch.addcmul(s, s, t, out=empty_like(u))
        torch.mul(slope, du, out=dy)
        ctx.save_for_backward(z, s, slope, t)
        return out

    @staticmethod
    @override
    def gradient(ctx: Any, saved: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor]:
        z, s, slope, t = saved
        u, du = z.chunk(2)
        grad_y, grad_dy = grad.chunk(2)
        bend = torch.sub(u, t, alpha=2, out=empty_like(u)).sub_(2)
        torch.ops.aten.sigmoid_backward.grad_input(bend, s, grad_input=bend).mul_(du)  # -silu'' du
        grad_z = empty_like(z)
        grad_u, grad_du = grad_z.chunk(2)
        torch.mul(grad_dy, slope, out=grad_du)
        torch.mul(grad_y, slope, out=grad_u).addcmul_(grad_dy, bend, value=-1)
        return (grad_z,)


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
        return y, lambda v: v.mul_(slope[: len(v)])

    @override
    def value_and_jvp(self, z: Tensor, tensors: Tensors) -> Tensor:
        x, dx = z.chunk(2)
        y = F.elu(x)
        return torch.cat([y, (y.clamp_max(0) + 1) * dx])

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
    def _core(self, y: Tensor, u: Tensor) -> Tensor:
        """silu(-u) = silu(u) - u saves the second exponential."""
        return torch.cat([y, y - u], 1)

    @override
    def _core_adjoint(self, v: Tensor, slope: Tensor) -> Tensor:
        a, b = v.chunk(2, 1)
        return torch.add(a, b).mul_(slope).sub_(b)

    @override
    def lipschitz_bound(self, n_tokens: int | None = None) -> float:
        return PAIR_SLOPE / (1.1 * 1.004)
