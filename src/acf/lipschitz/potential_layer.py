"""Convex potential layers (Meunier, Delattre, Araujo, Allauzen, arXiv 2110.12690)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from acf.lipschitz.effective import Described, Description, Scalar, ScaledMap
from acf.lipschitz.either_layout import EitherLayout
from acf.lipschitz.kernels.convolution import arranged
from acf.lipschitz.kernels.fused import fused
from acf.lipschitz.kernels.layout import in_layout
from acf.lipschitz.layer import VJP, Pullback, Tensors
from acf.lipschitz.normalised_conv import NormalisedConv2d
from acf.lipschitz.once_differentiable import is_transformed
from acf.lipschitz.precision import require_full_precision


class PotentialLayer(EitherLayout, Described):
    """x -> x - 2 W^T s(W x + a) for a convolution W of norm N <= 1: Lip <= max(1, 2 N^2 - 1) (Proposition 6d).

    s(y) = softplus(b y) / b with b = softplus(beta) learnt; its slopes lie in (0, 1). The layer is a step down the
    gradient of the convex potential 2 sum_i S(w_i x + a_i), S' = s, whose Hessian lies between 0 and 2. Directions that
    W does not see pass unchanged, so that a sequence of such layers loses nothing of their length. Published is
    x - 2 W^T relu(W x + a) / |W|^2; this project takes a smooth s, with b = 5 at the start, and a W that is
    normalised, as in all of its layers.

    Args:
        channels: channels of x and of the result.
        hidden: channels of W x.
        kernel: side of the square kernel of W, odd.
        size: (H, W) of the maps; the norm depends on it.
        coefficient: largest norm of W allowed.
    """

    supports_bfloat16 = True

    def __init__(
        self, channels: int, hidden: int, kernel: int, size: tuple[int, int], coefficient: float = 0.98
    ) -> None:
        super().__init__()
        self.linear = NormalisedConv2d(channels, hidden, kernel, size, coefficient)
        self.beta = nn.Parameter(torch.tensor(4.993239250550511))  # softplus of it is 5

    @override
    def forward(self, x: Tensor) -> Tensor:
        require_full_precision(x, self.linear.weight, type(self).__name__)
        tensors = self.effective_tensors()
        if not (torch.is_grad_enabled() or torch.compiler.is_compiling() or is_transformed(x)):
            return self.value_and_vjp(x, tensors, x.dtype)[0]
        (weight, bias), scale = tensors
        y = F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
        return x - scale * F.conv_transpose2d(-F.logsigmoid(-y), weight, padding=weight.shape[-1] // 2)

    @override
    def described_tensors(self) -> Description:
        """Describe ((b W, b a), 2 / b^2), for x - (2 / b^2) (b W)^T softplus(b W x + b a)."""
        return ScaledMap(self.linear, output_scale=Scalar(_scales, self.beta, 0)), Scalar(_scales, self.beta, 1)

    @override
    def value_and_vjp_in(
        self, x: Tensor, rows: bool, size: Sequence[int], tensors: Tensors, dtype: torch.dtype
    ) -> tuple[Tensor, bool, VJP]:
        (weight, bias), scale = tensors
        convolution = arranged(weight, *size)
        out_rows = convolution.takes_rows
        x = in_layout(x, rows, out_rows, size)
        bent, slope = _softplus_and_slope(convolution.apply(x, bias))
        value = torch.addcmul(x, convolution.adjoint(bent), scale, value=-1)
        slope = (slope * scale).to(dtype)
        if dtype != weight.dtype:
            convolution = arranged(weight.to(dtype), *size)

        def vjp(v: Tensor) -> Tensor:
            seen = convolution.apply(v)
            product = convolution.adjoint(seen.mul_(slope[: len(seen)]))
            return in_layout(torch.sub(v, product), out_rows, rows, size)

        return value, out_rows, vjp

    @override
    def jvp_and_pullback_in(
        self, z: Tensor, rows: bool, size: Sequence[int], tensors: Tensors
    ) -> tuple[Tensor, bool, Pullback]:
        (weight, bias), scale = tensors
        convolution = arranged(weight, *size)
        out_rows = convolution.takes_rows
        z = in_layout(z, rows, out_rows, size)
        y = convolution.apply(z)
        values = y.shape[0] // 2
        y[:values].add_(bias if convolution.gives_rows else bias.view(-1, 1, 1))
        bent = _softplus_jvp(y)
        product = convolution.adjoint(bent)

        def pullback(u: Tensor) -> tuple[Tensor, Tensors]:
            of_scale = -(u * product).sum().view(scale.shape) if scale.requires_grad else None
            of_product = u * -scale
            of_y = _softplus_jvp_vjp(y, convolution.apply(of_product))
            of_weight = None
            if weight.requires_grad:
                of_weight = convolution.weight_gradient(z, of_y) + convolution.weight_gradient(of_product, bent)
            positions = 0 if convolution.gives_rows else (0, 2, 3)
            of_bias = of_y[:values].sum(positions) if bias.requires_grad else None
            of_z = in_layout(u + convolution.adjoint(of_y), out_rows, rows, size)
            return of_z, ((of_weight, of_bias), of_scale)

        return torch.addcmul(z, product, scale, value=-1), out_rows, pullback

    @override
    def lipschitz_bound(self, n_tokens: int | None = None) -> float:
        """Return 1 where the proven bound N of |W| is at most 1, else 2 N^2 - 1 (NaN where N is NaN)."""
        norm = self.linear.lipschitz_bound()
        return 1.0 if norm <= 1 else 2 * norm**2 - 1

    @override
    def intermediate_values(self, positions: int) -> int:
        return self.linear.intermediate_values(positions)


def _scales(beta: Tensor) -> tuple[Tensor, Tensor]:
    """b = softplus(beta), within what keeps the digits of softplus(b y) / b, and 2 / b^2."""
    b = F.softplus(beta).clamp(1e-2, 1e4)
    return b, 2 / b.square()


@fused
def _softplus_and_slope(y: Tensor) -> tuple[Tensor, Tensor]:
    return -F.logsigmoid(-y), torch.sigmoid(y)


@fused
def _softplus_jvp(z: Tensor) -> Tensor:
    """[softplus(y); softplus'(y) dy] for z = [y; dy]."""
    y, dy = z.chunk(2)
    return torch.cat([-F.logsigmoid(-y), torch.sigmoid(y) * dy])


@fused
def _softplus_jvp_vjp(z: Tensor, v: Tensor) -> Tensor:
    (y, dy), (of_value, of_tangent) = z.chunk(2), v.chunk(2)
    slope = torch.sigmoid(y)
    of_dy = of_tangent * slope
    return torch.cat([of_value * slope + of_dy * (1 - slope) * dy, of_dy])
