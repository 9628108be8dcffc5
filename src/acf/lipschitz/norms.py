"""Proven upper bounds of the spectral norm of matrices and of zero-padded convolutions, in float64."""

import math

import torch
import torch.nn.functional as F

# Bounds are for exact arithmetic with the stored weights; the networks run in float32. The relative error of a
# float32 product with these sizes stays well below this allowance.
ROUNDING = 1 + 1e-4


def matrix_norm_bound(weight: torch.Tensor) -> float:
    """Spectral norm of a matrix (out, in) by singular value decomposition, times the rounding allowance.

    Infinite where an entry is not finite.
    """
    matrix = weight.detach().cpu().double()
    if not matrix.isfinite().all():
        return math.inf
    return float(torch.linalg.matrix_norm(matrix, 2)) * ROUNDING


# Limits of the dense computation: beyond 64 positions the torus is within about 2 % of the norm and much cheaper.
DENSE_POSITIONS, DENSE_VALUES = 64, 1024


def conv_norm_bound(weight: torch.Tensor, height: int, width: int) -> float:
    """Upper bound of the l2 norm of a stride-1 convolution with zero padding (k - 1) / 2 on height x width maps.

    Exact on maps of at most 64 positions whose smaller side has at most 1024 values, where a torus would be some
    percents too large; otherwise from the frequencies of a torus, exact in the limit of large maps.

    Args:
        weight: kernel (out, in, k, k), k odd.
        height: rows of the feature map.
        width: columns of the feature map.
    """
    kernel = weight.detach().cpu().double()
    if kernel.shape[2] == kernel.shape[3] == 1:
        return matrix_norm_bound(kernel[:, :, 0, 0])
    if not kernel.isfinite().all():
        return math.inf
    positions = height * width
    if positions <= DENSE_POSITIONS and min(kernel.shape[:2]) * positions <= DENSE_VALUES:
        return _dense_norm(kernel, height, width) * ROUNDING
    return torus_norm_bound(kernel, height, width)


def _dense_norm(kernel: torch.Tensor, height: int, width: int) -> float:
    """The norm itself, from the Gram matrix of the images of all unit vectors on the smaller side."""
    out_channels, in_channels, rows, columns = kernel.shape
    apply = F.conv2d if in_channels <= out_channels else F.conv_transpose2d
    channels = min(in_channels, out_channels)
    values = channels * height * width
    units = torch.eye(values, dtype=kernel.dtype).view(values, channels, height, width)
    images = apply(units, kernel, padding=(rows // 2, columns // 2)).flatten(1)
    return _root_of_largest(images @ images.T)


def torus_norm_bound(weight: torch.Tensor, height: int, width: int) -> float:
    """Upper bound of the norm of a zero-padded convolution: that of the circular one that contains it.

    With r = (k - 1) / 2 the map is R C E: E places the image on a torus of (height + r) x (width + r) points, where
    the padding of opposite sides shares one gap of r zeros, C is the circular convolution there and R a restriction.
    E and R have norm 1, so the norm is at most that of C, the largest over the torus' frequencies w of |K(w)|_2 with
    K(w) = sum_ab K_ab exp(-i w.(a, b)) of shape (out, in) (docs/mathematics.md, Proposition 5).

    Args:
        weight: kernel (out, in, k, k), k odd.
        height: rows of the feature map.
        width: columns of the feature map.
    """
    kernel = weight.detach().cpu().double()
    if not kernel.isfinite().all():
        return math.inf
    out_channels, in_channels, kernel_h, kernel_w = kernel.shape
    torus = (height + (kernel_h - 1) // 2, width + (kernel_w - 1) // 2)
    if torus[0] < kernel_h or torus[1] < kernel_w:
        torus = (max(torus[0], kernel_h), max(torus[1], kernel_w))  # a larger torus is as good
    if out_channels > in_channels:
        kernel = kernel.transpose(0, 1)
    # A real kernel has conjugate symbols at opposite frequencies, so half of them suffice.
    symbol = torch.fft.rfft2(kernel, s=torus).flatten(2).permute(2, 0, 1)
    return _root_of_largest(symbol @ symbol.mH) * ROUNDING


def _root_of_largest(gram: torch.Tensor) -> float:
    return float(torch.linalg.eigvalsh(gram)[..., -1].max().clamp_min(0).sqrt())
