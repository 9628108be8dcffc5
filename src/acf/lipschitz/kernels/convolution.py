"""Stride-1 convolution with zero padding: the map, its adjoint and the gradient of its weight, in a fast arrangement.

On small maps a convolution is the product with a matrix: a library's convolution costs more there before it starts than
the product costs. On larger maps there are two arrangements.

On a CPU, kernels are fastest if the channels of a position lie side by side. Where a patch k x k x in has no more
values than there are outputs, patches are gathered and multiplied by a matrix. Where few outputs are computed from many
inputs, the library's kernels waste most of their vector width: there a 1x1 convolution with k^2 times as many outputs
computes the contribution of every tap, and contributions are moved to their positions and summed. Other devices use the
convolution of their library as it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
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
    """T_W for a weight W (out, in, k, k) with odd k; no result has a graph.

    Args:
        weight: W.
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight
        self.kernel = weight.shape[-1]

    @abstractmethod
    def apply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return T_W x + b (B, out, H, W) for x (B, in, H, W), as a tensor that nothing else uses."""

    @abstractmethod
    def adjoint(self, v: Tensor) -> Tensor:
        """Return T_W^T v (B, in, H, W) for v (B, out, H, W), as a tensor that nothing else uses."""

    @abstractmethod
    def weight_gradient(self, x: Tensor, grad: Tensor) -> Tensor:
        """Return the gradient of sum(grad * T_W x) in W."""


def arranged(weight: Tensor, height: int, width: int) -> Convolution:
    """Return the arrangement for maps of this size on the weight's device."""
    small = height * width <= SMALL_MAP
    if weight.shape[-1] == 1 and (small or weight.is_cpu):
        return PointwiseConvolution(weight)
    if small:
        return MatrixConvolution(weight, height, width)
    return CPUConvolution(weight) if weight.is_cpu else LibraryConvolution(weight)


class LibraryConvolution(Convolution):
    """The convolution of torch as it is."""

    @override
    def apply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(x, self.weight, bias, padding=self.kernel // 2)

    @override
    def adjoint(self, v: Tensor) -> Tensor:
        return F.conv_transpose2d(v, self.weight, padding=self.kernel // 2)

    @override
    def weight_gradient(self, x: Tensor, grad: Tensor) -> Tensor:
        return _library_weight_gradient(x, grad, self.weight)


class PointwiseConvolution(Convolution):
    """The 1x1 convolution as the product of a matrix with the rows of channels of all positions."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight)
        self.matrix = weight.reshape(weight.shape[:2])
        self.transposed = self.matrix.t()

    @override
    def apply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        rows = rows_of_channels(x)
        out = out_of_rows(rows, self.weight.shape[0])
        if bias is None:
            return maps_of_rows(torch.mm(rows, self.transposed, out=out), self.weight.shape[0], x.shape)
        return maps_of_rows(torch.addmm(bias, rows, self.transposed, out=out), self.weight.shape[0], x.shape)

    @override
    def adjoint(self, v: Tensor) -> Tensor:
        rows, inputs = rows_of_channels(v), self.weight.shape[1]
        return maps_of_rows(torch.mm(rows, self.matrix, out=out_of_rows(rows, inputs)), inputs, v.shape)

    @override
    def weight_gradient(self, x: Tensor, grad: Tensor) -> Tensor:
        return torch.mm(rows_of_channels(grad).t(), rows_of_channels(x)).view(self.weight.shape)


def rows_of_channels(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B H W, C), by one view where the channels of a position lie side by side."""
    samples, channels, height, width = x.shape
    if x.stride() == (height * width * channels, 1, width * channels, channels):
        return x.as_strided((samples * height * width, channels), (channels, 1))
    return x.permute(0, 2, 3, 1).reshape(-1, channels)


def maps_of_rows(rows: Tensor, channels: int, shape: Sequence[int]) -> Tensor:
    """Rows of channels -> (B, C, H, W) with B, H and W of `shape`, by one view of contiguous rows."""
    samples, _, height, width = shape
    return rows.as_strided(
        (samples, channels, height, width), (height * width * channels, 1, width * channels, channels)
    )


class MatrixConvolution(Convolution):
    """The product with the matrix D of T_W.

    Narrow maps are rows of values in the order (C, H, W), wide ones in the order (H, W, C): the latter is the order in
    which a 1x1 convolution is one product, and elementwise maps keep any order.

    Args:
        weight: W.
        height: rows of the maps.
        width: columns of the maps.
    """

    def __init__(self, weight: Tensor, height: int, width: int) -> None:
        super().__init__(weight)
        self.size = height, width
        self.out, self.inputs = weight.shape[:2]
        self.pairs = _taps_of_pairs(height, width, self.kernel, weight.dtype, weight.device)
        positions = height * width
        taps = weight.permute(2, 3, 1, 0).reshape(self.kernel**2, -1)
        entries = torch.mm(self.pairs, taps).view(positions, positions, self.inputs, self.out)
        self.matrix = entries.permute(self._order).reshape(positions * self.inputs, positions * self.out)
        self.transposed = self.matrix.t()
        self.widens = self.inputs <= self.out

    @property
    def _order(self) -> tuple[int, ...]:
        """Dimensions (position in, position out, in, out) in the order of D's rows and columns."""
        return (2, 0, 1, 3) if self.inputs <= self.out else (0, 2, 3, 1)

    @override
    def apply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        y = self._maps(torch.mm(self._rows(x, not self.widens), self.matrix), self.out, self.widens)
        return y if bias is None else y.add_(bias.view(-1, 1, 1))

    @override
    def adjoint(self, v: Tensor) -> Tensor:
        return self._maps(torch.mm(self._rows(v, self.widens), self.transposed), self.inputs, not self.widens)

    @override
    def weight_gradient(self, x: Tensor, grad: Tensor) -> Tensor:
        positions, order = self.size[0] * self.size[1], self._order
        sizes = positions, positions, self.inputs, self.out
        entries = torch.mm(self._rows(x, not self.widens).t(), self._rows(grad, self.widens))
        entries = entries.view([sizes[d] for d in order]).permute([order.index(d) for d in range(4)])
        taps = torch.mm(self.pairs.t(), entries.reshape(positions**2, -1))
        return taps.view(self.kernel, self.kernel, self.inputs, self.out).permute(3, 2, 0, 1)

    def _rows(self, x: Tensor, wide: bool) -> Tensor:
        """(B, C, H, W) -> (B, C H W), wide maps in the order (H, W, C)."""
        return (rows_of_channels(x) if wide else x).reshape(x.shape[0], x.shape[1] * self.size[0] * self.size[1])

    def _maps(self, rows: Tensor, channels: int, wide: bool) -> Tensor:
        shape = rows.shape[0], channels, *self.size
        return maps_of_rows(rows, channels, shape) if wide else rows.view(shape)


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


class CPUConvolution(Convolution):
    """The arrangements for larger maps on a CPU."""

    @override
    def apply(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        return _product_with(self.weight, bias)(x)

    @override
    def adjoint(self, v: Tensor) -> Tensor:
        if not hasattr(self, "_adjoint"):
            self._adjoint = _product_with(transposed(self.weight), None)  # rearranged once for any number of products
        return self._adjoint(v)

    @override
    def weight_gradient(self, x: Tensor, grad: Tensor) -> Tensor:
        x, grad, weight = channels_last(x), channels_last(grad), self.weight
        out, inputs, kernel, _ = weight.shape
        if not _narrow(weight):
            return _library_weight_gradient(x, grad, weight.contiguous())
        moved = channels_last(F.unfold(grad, kernel, padding=kernel // 2).unflatten(2, x.shape[2:]))
        taps = _library_weight_gradient(x, moved, _taps(weight))
        return taps.view(out, kernel, kernel, inputs).permute(0, 3, 1, 2).flip(2, 3)


def _product_with(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    kernel = weight.shape[-1]
    if kernel > 1 and weight[0].numel() <= len(weight):
        return _gathered(weight, bias)
    if not _narrow(weight):
        weight = weight.contiguous()
        return lambda x: F.conv2d(channels_last(x), weight, bias, padding=kernel // 2)
    taps = _taps(weight)

    def moved_and_summed(x: Tensor) -> Tensor:
        y = F.fold(F.conv2d(channels_last(x), taps).flatten(2), x.shape[2:], kernel, padding=kernel // 2)
        return y if bias is None else y.add_(bias.view(-1, 1, 1))

    return moved_and_summed


def _gathered(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    out, _, kernel, _ = weight.shape
    matrix = weight.permute(2, 3, 1, 0).reshape(-1, out)

    def product(x: Tensor) -> Tensor:
        samples, _, height, width = x.shape
        patches = _patches(x, kernel).view(samples * height * width, len(matrix))
        y = empty((samples, height, width, out), x)
        flat = y.view(len(patches), out)
        if bias is None:
            torch.mm(patches, matrix, out=flat)
        else:
            torch.addmm(bias, patches, matrix, out=flat)
        return y.permute(0, 3, 1, 2)

    return product


def _patches(x: Tensor, kernel: int) -> Tensor:
    """(B, C, H, W) -> (B, H, W, k, k, C): the patch around each position, zero outside the map."""
    samples, channels, height, width = x.shape
    r = kernel // 2
    x = F.pad(channels_last(x).permute(0, 2, 3, 1), (0, 0, r, r, r, r))
    across, down, right, channel = x.stride()
    windows = x.as_strided(
        (samples, height, width, kernel, kernel, channels), (across, down, right, down, right, channel)
    )
    return empty(tuple(windows.shape), x).copy_(windows)


def transposed(weight: Tensor) -> Tensor:
    """Return the weight (in, out, k, k) of the adjoint of T_W."""
    return (weight if weight.shape[-1] == 1 else weight.flip(2, 3)).transpose(0, 1)


def _library_weight_gradient(x: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    padding = [weight.shape[-1] // 2] * 2
    wanted = [False, True, False]
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, [1, 1], padding, [1, 1], False, [0, 0], 1, wanted
    )[1]


def _narrow(weight: Tensor) -> bool:
    out, inputs, kernel, _ = weight.shape
    return kernel > 1 and 4 * out * kernel**2 <= inputs


def _taps(weight: Tensor) -> Tensor:
    """(out, in, k, k) -> (out * k^2, in, 1, 1), in the order in which `fold` adds them up."""
    return weight.flip(2, 3).permute(0, 2, 3, 1).reshape(-1, weight.shape[1], 1, 1)


def channels_last(x: Tensor) -> Tensor:
    """Return x (B, C, H, W) with the channels of a position side by side in memory."""
    if x.shape[1] > 1:
        return x.contiguous(memory_format=torch.channels_last)
    # With one channel both formats hold the same numbers in the same order; the strides tell kernels which is meant.
    _, _, height, width = x.shape
    return x.contiguous().as_strided(x.shape, (height * width, 1, width, 1))
