"""Stride-1 convolution with zero padding: the map, its adjoint and the gradient of its weight, as products of matrices.

Libraries compute the convolutions of residual blocks, between few channels and many, slowly: on an H200 in float32 a
step of the paper's model took 0.40 s with cuDNN's and less than half with the products here; on CPUs most of a vector's
width is wasted, and on small maps a call costs more before it starts than the product. So the patches of the narrow
side are multiplied by the weight as a matrix, and maps of the wide side are rows of channels
(`acf.lipschitz.kernels.layout`). Only where both sides are wide the library's convolution is used.
"""

from abc import ABC, abstractmethod
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from acf.lipschitz.kernels.scratch import empty, out_of_rows

SMALL_MAP = 16
"""Largest number of positions for which the matrix of a k x k convolution, k > 1, is made.

Its product costs positions / k^2 times the operations of a convolution at most: 1.8 times for 4 x 4 positions and
k = 3, which took half the time all the same (64 maps of 4 channels to 74, one thread).
"""


class Convolution(ABC):
    """T_W for a weight W (out, in, k, k) with odd k, on maps of one size; no result has a graph.

    Nothing else uses the memory of a result.

    Attributes:
        takes_rows: whether elements of the domain, inputs and results of the adjoint, are rows instead of maps.
        gives_rows: the same of the range.

    Args:
        weight: W.
        height: rows of the maps.
        width: columns of the maps.
    """

    takes_rows = False
    gives_rows = True

    def __init__(self, weight: Tensor, height: int, width: int) -> None:
        self.weight, self.height, self.width = weight, height, width
        self.out, self.inputs, self.kernel = weight.shape[:3]

    @abstractmethod
    def apply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return T_W x + b."""

    @abstractmethod
    def adjoint(self, v: Tensor) -> Tensor:
        """Return T_W^T v."""

    @abstractmethod
    def weight_gradient(self, x: Tensor, grad: Tensor) -> Tensor:
        """Return the gradient of sum(grad * T_W x) in W."""


def arranged(weight: Tensor, height: int, width: int) -> Convolution:
    """Return the arrangement for this weight and maps of this size."""
    out, inputs, kernel, _ = weight.shape
    if kernel == 1:
        return PointwiseConvolution(weight, height, width)
    if out < inputs:
        adjoint = _widening(transposed(weight), height, width)
        return LibraryConvolution(weight, height, width) if adjoint is None else AdjointConvolution(weight, adjoint)
    return _widening(weight, height, width) or LibraryConvolution(weight, height, width)


def _widening(weight: Tensor, height: int, width: int) -> Convolution | None:
    if height * width <= SMALL_MAP:
        return MatrixConvolution(weight, height, width)
    return PatchConvolution(weight, height, width) if weight[0].numel() <= len(weight) else None


class PointwiseConvolution(Convolution):
    """The 1x1 convolution, the product with a matrix, from rows to rows."""

    takes_rows = True

    def __init__(self, weight: Tensor, height: int, width: int) -> None:
        super().__init__(weight, height, width)
        self.matrix = weight.reshape(self.out, self.inputs)
        self.transposed = self.matrix.t()

    @override
    def apply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return _product(x, self.transposed, bias)

    @override
    def adjoint(self, v: Tensor) -> Tensor:
        return _product(v, self.matrix)

    @override
    def weight_gradient(self, x: Tensor, grad: Tensor) -> Tensor:
        return torch.mm(grad.t(), x).view(self.weight.shape)


class PatchConvolution(Convolution):
    """A convolution to more channels: the product of the patches with the weight as a matrix, from maps to rows."""

    def __init__(self, weight: Tensor, height: int, width: int) -> None:
        super().__init__(weight, height, width)
        self.matrix = weight.reshape(self.out, -1)
        self.transposed = self.matrix.t()
        self._last: tuple[Tensor, int, Tensor] | None = None

    @override
    def apply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return _product(self._patches(x), self.transposed, bias)

    @override
    def adjoint(self, v: Tensor) -> Tensor:
        patches = _product(v, self.matrix).view(-1, self.height * self.width, self.matrix.shape[1])
        size = self.height, self.width
        return F.fold(patches.transpose(1, 2), size, self.kernel, padding=self.kernel // 2)

    @override
    def weight_gradient(self, x: Tensor, grad: Tensor) -> Tensor:
        return torch.mm(grad.t(), self._patches(x)).view(self.weight.shape)

    def _patches(self, x: Tensor) -> Tensor:
        """Return `_made_patches`; those of one tensor, which products and gradients ask for in turn, are made once."""
        if self._last is None or self._last[0] is not x or self._last[1] != x._version:
            self._last = x, x._version, self._made_patches(x)
        return self._last[2]

    def _made_patches(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B H W, C k k): the patch around each position, zero outside the map."""
        k, r = self.kernel, self.kernel // 2
        x = F.pad(x.contiguous(), (r, r, r, r))
        samples, channels, _, _ = x.shape
        sample, channel, down, right = x.stride()
        windows = x.as_strided(
            (samples, self.height, self.width, channels, k, k), (sample, down, right, channel, down, right)
        )
        rows = samples * self.height * self.width, channels * k * k
        if not x.is_cpu:
            return windows.reshape(rows)
        return empty(tuple(windows.shape), x).copy_(windows).view(rows)


class MatrixConvolution(Convolution):
    """A convolution to at least as many channels: the product with the matrix of T_W, from maps to rows."""

    def __init__(self, weight: Tensor, height: int, width: int) -> None:
        super().__init__(weight, height, width)
        self.positions = height * width
        self.pairs = _taps_of_pairs(height, width, self.kernel, weight.dtype, weight.device)
        taps = weight.permute(2, 3, 1, 0).reshape(self.kernel**2, self.inputs * self.out)
        entries = torch.mm(self.pairs, taps).view(self.positions, self.positions, self.inputs, self.out)
        self.matrix = entries.permute(2, 0, 1, 3).reshape(self.inputs * self.positions, self.positions * self.out)
        self.transposed = self.matrix.t()

    @override
    def apply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        y = torch.mm(self._narrow(x), self.matrix).view(-1, self.out)
        return y if bias is None else y.add_(bias)

    @override
    def adjoint(self, v: Tensor) -> Tensor:
        return torch.mm(self._wide(v), self.transposed).view(-1, self.inputs, self.height, self.width)

    @override
    def weight_gradient(self, x: Tensor, grad: Tensor) -> Tensor:
        entries = torch.mm(self._narrow(x).t(), self._wide(grad))
        entries = entries.view(self.inputs, self.positions, self.positions, self.out).permute(1, 2, 0, 3)
        taps = torch.mm(self.pairs.t(), entries.reshape(self.positions**2, self.inputs * self.out))
        return taps.view(self.kernel, self.kernel, self.inputs, self.out).permute(3, 2, 0, 1)

    def _narrow(self, x: Tensor) -> Tensor:
        return x.reshape(-1, self.inputs * self.positions)

    def _wide(self, v: Tensor) -> Tensor:
        return v.reshape(-1, self.positions * self.out)


class AdjointConvolution(Convolution):
    """A convolution to fewer channels, from rows to maps, as the adjoint of one to more.

    Args:
        weight: W.
        widening: the convolution with the transposed weight.
    """

    takes_rows, gives_rows = True, False

    def __init__(self, weight: Tensor, widening: Convolution) -> None:
        super().__init__(weight, widening.height, widening.width)
        self.widening = widening

    @override
    def apply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        y = self.widening.adjoint(x)
        return y if bias is None else y.add_(bias.view(-1, 1, 1))

    @override
    def adjoint(self, v: Tensor) -> Tensor:
        return self.widening.apply(v)

    @override
    def weight_gradient(self, x: Tensor, grad: Tensor) -> Tensor:
        return transposed(self.widening.weight_gradient(grad, x))


class LibraryConvolution(Convolution):
    """torch's convolution, from maps to maps; on a CPU with the channels of a position side by side in memory."""

    gives_rows = False

    @override
    def apply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(self._maps(x), self.weight, bias, padding=self.kernel // 2)

    @override
    def adjoint(self, v: Tensor) -> Tensor:
        return F.conv_transpose2d(self._maps(v), self.weight, padding=self.kernel // 2)

    @override
    def weight_gradient(self, x: Tensor, grad: Tensor) -> Tensor:
        padding = [self.kernel // 2] * 2
        _, of_weight, _ = torch.ops.aten.convolution_backward(
            self._maps(grad), self._maps(x), self.weight, None, [1, 1], padding, [1, 1], False, [0, 0], 1,
            [False, True, False],
        )  # fmt: skip
        gradient: Tensor = of_weight
        return gradient

    def _maps(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last) if x.is_cpu else x.contiguous()


def _product(rows: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
    out = out_of_rows(rows, matrix.shape[1])
    return torch.mm(rows, matrix, out=out) if bias is None else torch.addmm(bias, rows, matrix, out=out)


@cache
def _taps_of_pairs(height: int, width: int, kernel: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """For each pair (position in, position out) a row of k^2 numbers: 1 for the tap that joins them, 0 elsewhere."""
    with torch.inference_mode(False), torch.no_grad():
        rows, columns = (torch.arange(n, device="cpu") for n in (height, width))
        places = torch.cartesian_prod(rows, columns).view(-1, 2)
        offsets = places[:, None] - places[None] + kernel // 2
        inside = ((offsets >= 0) & (offsets < kernel)).all(-1)
        tap = offsets[..., 0] * kernel + offsets[..., 1]
        joins = (tap[..., None] == torch.arange(kernel**2, device="cpu")) & inside[..., None]
        return joins.flatten(0, 1).to(device, dtype)


def transposed(weight: Tensor) -> Tensor:
    """Return the weight (in, out, k, k) of the adjoint of T_W."""
    return (weight if weight.shape[-1] == 1 else weight.flip(2, 3)).transpose(0, 1)
