"""Stride-1 convolution with zero padding, in the arrangement that CPUs compute fastest.

CPU kernels are fastest if the channels of a position lie side by side. Where a patch k x k x in has no more values than
there are outputs, patches are gathered and multiplied by a matrix. Where few outputs are computed from many inputs, the
library's kernels waste most of their vector width: there a 1x1 convolution with k^2 times as many outputs computes the
contribution of every tap, and contributions are moved to their positions and summed. Other devices use the convolution
of their library as it is.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import override

from acf.lipschitz.kernels.scratch import empty
from acf.lipschitz.once_differentiable import VALUE_AND_JVP_ONCE, OnceDifferentiable


def convolution(weight: Tensor, bias: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """Return the function x (B, in, H, W) -> T_W x + b (B, out, H, W), for a weight (out, in, k, k) with odd k.

    Rearrangements of the weight are done once, here. On a CPU results have no graph.
    """
    kernel = weight.shape[-1]
    if weight.device.type != "cpu":
        return lambda x: F.conv2d(x, weight, bias, padding=kernel // 2)
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


def convolution_value_and_jvp(z: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return [T_W x + b; T_W dx] (2 B, out, H, W) for z = [x; dx] (2 B, in, H, W), differentiable once."""
    return cast(Tensor, _ConvolutionValueAndJVP.apply(z, weight, bias))


class _ConvolutionValueAndJVP(OnceDifferentiable):
    advice = VALUE_AND_JVP_ONCE

    @staticmethod
    @override
    def forward(ctx: Any, z: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(z, weight)
        y = convolution(weight)(z)
        if bias is not None:
            y[: len(z) // 2] += bias.view(-1, 1, 1)
        return y

    @staticmethod
    @override
    def gradient(ctx: Any, saved: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor | None, ...]:
        z, weight = saved
        needs_z, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            convolution(transposed(weight))(grad) if needs_z else None,
            _weight_gradient(z, grad, weight) if needs_weight else None,
            grad[: len(grad) // 2].sum((0, 2, 3)) if needs_bias else None,
        )


def _weight_gradient(x: Tensor, grad: Tensor, weight: Tensor) -> Tensor:
    """Return the gradient (out, in, k, k) of sum(grad * T_W x) in W, for x (B, in, H, W) and grad (B, out, H, W)."""
    if x.device.type != "cpu":
        return _library_weight_gradient(x, grad, weight)
    x, grad = channels_last(x), channels_last(grad)
    out, inputs, kernel, _ = weight.shape
    if not _narrow(weight):
        return _library_weight_gradient(x, grad, weight.contiguous())
    moved = channels_last(F.unfold(grad, kernel, padding=kernel // 2).unflatten(2, x.shape[2:]))
    taps = _library_weight_gradient(x, moved, _taps(weight))
    return taps.view(out, kernel, kernel, inputs).permute(0, 3, 1, 2).flip(2, 3)


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
