"""CPila, the activation of Monotone Flows (Ahn, Kim, Hong, Kim, arXiv 2210.08176)."""

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from acf.lipschitz.activations import ScaledActivation, first_samples, scaled
from acf.lipschitz.kernels.fused import fused
from acf.lipschitz.kernels.scratch import empty_like, out_like
from acf.lipschitz.layer import VJP, Tensors

# sqrt(1 + 19^2 exp(-8)) = 1.058821046576..., the largest norm of the pair of slopes; the last digit is rounded up.
PILA_PAIR_SLOPE = 1.0588210466
# exp(-s) has underflowed against all that it is added to long before; from here on its products are left constant.
FARTHEST = 80.0


class CPila(ScaledActivation):
    """x -> [P(b x - 1) ; P(-b x - 1)] / (1.06 b) along dimension 1: twice the channels.

    P(z) = z for z > 0 and z (1 - z + z^2 / 2) exp(z) otherwise has three continuous derivatives and slopes from
    -19 exp(-4) to 1. Published (arXiv 2210.08176 and its code) is b = 5, as [Pila(x - 0.2) ; Pila(-x - 0.2)] / 1.06
    with Pila(x) = P(5 x) / 5. This is b at the start; that it is learnt, as LipSwish's is, is this project's
    choice. It does not change the slopes.

    Each x enters two outputs, whose slopes have a norm of at most sqrt(1 + 19^2 exp(-8)) = 1.05883 (rounded up)
    before the division by 1.06 (section 9 of docs/mathematics.md).
    """

    widening = 2
    divisor = 1.06

    def __init__(self) -> None:
        super().__init__(4.993239250550511)  # softplus of it is 5

    @override
    def core(self, u: Tensor) -> Tensor:
        t = torch.cat([1 - u, 1 + u], 1)
        s = t.clamp(0, FARTHEST)
        # relu has the derivative 0 at 0, where clamp has 1 and would count that of the other part twice.
        return F.relu(-t) - s * (1 + s + s * s / 2) * torch.exp(-s)

    @override
    def core_and_vjp(self, u: Tensor, scales: Tensors, dtype: torch.dtype) -> tuple[Tensor, VJP]:
        core, slopes = _pair_and_slopes(u)
        if dtype != slopes.dtype:
            slopes = empty_like(slopes, dtype).copy_(slopes)
        for scale in scales:
            slopes = scaled(slopes, scale)
        first, second = slopes.chunk(2, 1)

        def vjp(v: Tensor) -> Tensor:
            a, b = v.chunk(2, 1)
            return torch.mul(a, first_samples(first, v)).addcmul_(b, first_samples(second, v))

        return core, vjp

    @override
    def core_jvp_and_pullback(self, z: Tensor) -> tuple[Tensor, VJP]:
        output, slopes, bends = _pair_jvp(z)
        return output, lambda v: _pair_jvp_vjp(slopes, bends, v)

    @override
    def lipschitz_bound(self, n_tokens: int | None = None) -> float:
        return PILA_PAIR_SLOPE / 1.06


@fused
def _pair_and_slopes(u: Tensor) -> tuple[Tensor, Tensor]:
    """[P(u - 1) ; P(-u - 1)] and its derivatives in u."""
    core, slopes, _, _ = _pair(u)
    slopes.chunk(2, 1)[1].neg_()
    return core, slopes


def _pair(u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """[P(u - 1) ; P(-u - 1)], P' at the same places, s = max(0, 1 -+ u), and s^2 exp(-s) / 2.

    With s = max(0, -z), P(z) = max(0, z) - s (1 + s + s^2 / 2) exp(-s) and P'(z) = (1 + s + s^2 / 2 - s^3 / 2) exp(-s).
    """
    t = torch.cat([1 - u, 1 + u], 1)
    s = t.clamp(0, FARTHEST)
    core = t.neg_().clamp_min_(0)
    e = torch.exp(torch.neg(s, out=out_like(s)), out=out_like(s))
    square = torch.mul(s, s, out=out_like(s)).mul_(e).mul_(0.5)
    slopes = torch.addcmul(e, e, s, out=out_like(s)).add_(square)
    core.addcmul_(s, slopes, value=-1)
    return core, slopes.addcmul_(square, s, value=-1), s, square


@fused
def _pair_jvp(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """[core(u); J du] for z = [u; du], the derivatives of the core in u, and du times the second derivatives."""
    u, du = z.chunk(2)
    core, slopes, s, square = _pair(u)
    slopes.chunk(2, 1)[1].neg_()
    both = torch.cat([du, du], 1)
    bends = s.neg_().add_(4).mul_(square).mul_(both)  # P'' = (s^2 / 2) (4 - s) exp(-s)
    return torch.cat([core, both.mul_(slopes)]), slopes, bends


@fused
def _pair_jvp_vjp(slopes: Tensor, bends: Tensor, v: Tensor) -> Tensor:
    of_core, of_tangent = v.chunk(2)
    of_u = torch.addcmul(of_core * slopes, of_tangent, bends)
    of_du = of_tangent * slopes
    return torch.cat([torch.add(*of_u.chunk(2, 1)), torch.add(*of_du.chunk(2, 1))])
