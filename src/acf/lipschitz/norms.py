"""Proven upper bounds of the spectral norm of matrices and of zero-padded convolutions, in float64."""

import torch

# Bounds are for exact arithmetic with the stored weights; the networks run in float32. The relative error of a
# float32 product with these sizes stays well below this allowance.
ROUNDING = 1 + 1e-4


def matrix_norm_bound(weight: torch.Tensor) -> float:
    """Spectral norm of a matrix (out, in) by singular value decomposition, times the rounding allowance."""
    return float(torch.linalg.matrix_norm(weight.detach().cpu().double(), 2)) * ROUNDING


def conv_norm_bound(weight: torch.Tensor, height: int, width: int) -> float:
    """Upper bound of the l2 norm of a stride-1 convolution with zero padding (k - 1) / 2 on height x width maps.

    With r = (k - 1) / 2 the map is R C E: E places the image on a torus of (height + r) x (width + r) points, where
    the padding of opposite sides shares one gap of r zeros, C is the circular convolution there and R a restriction.
    E and R have norm 1, so the norm is at most that of C, the largest over the torus' frequencies w of |K(w)|_2 with
    K(w) = sum_ab K_ab exp(-i w.(a, b)) of shape (out, in) (docs/mathematics.md, Proposition 5).

    Args:
        weight: kernel (out, in, k, k), k odd.
        height: rows of the feature map.
        width: columns of the feature map.
    """
    out_channels, in_channels, kernel_h, kernel_w = weight.shape
    kernel = weight.detach().cpu().double()
    if kernel_h == kernel_w == 1:
        return matrix_norm_bound(kernel[:, :, 0, 0])
    torus = (height + (kernel_h - 1) // 2, width + (kernel_w - 1) // 2)
    if torus[0] < kernel_h or torus[1] < kernel_w:
        torus = (max(torus[0], kernel_h), max(torus[1], kernel_w))  # a larger torus is as good
    if out_channels > in_channels:
        kernel = kernel.transpose(0, 1)
    # A real kernel has conjugate symbols at opposite frequencies, so half of them suffice.
    symbol = torch.fft.rfft2(kernel, s=torus).flatten(2).permute(2, 0, 1)
    gram = symbol @ symbol.mH
    return float(torch.linalg.eigvalsh(gram)[:, -1].max().clamp_min(0).sqrt()) * ROUNDING
