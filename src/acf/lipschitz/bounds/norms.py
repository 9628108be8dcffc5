"""Proven upper bounds of the spectral norm of matrices and of zero-padded convolutions, in float64."""

import itertools
import math

import torch
from torch import Tensor

# Bounds are for exact arithmetic with the stored weights; the networks run in float32. The relative error of a
# float32 product with these sizes stays well below this allowance.
ROUNDING = 1 + 1e-4

# Limits of the dense computation: beyond 64 positions the torus is within about 2 % of the norm and much cheaper.
DENSE_POSITIONS, DENSE_VALUES = 64, 3072

# From this size on, an eigenvalue is estimated and the estimate proven, which is several times cheaper.
ESTIMATED_VALUES = 1024

# Relative distance from the largest eigenvalue at which a Cholesky factorisation has to tell "below" from "above".
CLOSE = 1e-10

# Bytes of the Gram matrices that are worked on at once; about four times as much is in use.
CHUNK_BYTES = 16 * 2**20


def matrix_norm_bound(weight: Tensor) -> float:
    """Return an upper bound of the spectral norm of a matrix (out, in), infinite where an entry is not finite.

    If the smaller side is at most 1024 it is the norm times the rounding allowance; beyond, commonly a relative 5e-6
    above that.
    """
    kernel, scale = _wide_kernel(weight[:, :, None, None])
    if not 0 < scale < math.inf:
        return scale
    matrix = kernel[:, :, 0, 0]
    return scale * math.sqrt(_largest_eigenvalue(matrix @ matrix.T)) * ROUNDING


def conv_norm_bound(weight: Tensor, height: int, width: int) -> float:
    """Return an upper bound of the l2 norm of a stride-1 convolution with zero padding (k - 1) / 2.

    On maps of at most 64 positions whose smaller side has at most 3072 values the bound is the norm itself (above 1024
    values commonly a relative 5e-6 more), because `torus_norm_bound` would be some percents too large there. On other
    maps it is `torus_norm_bound`. It is infinite where an entry is not finite.

    Args:
        weight: kernel (out, in, k, k), k odd.
        height: rows of the feature map.
        width: columns of the feature map.
    """
    positions = height * width
    if positions > DENSE_POSITIONS or min(weight.shape[:2]) * positions > DENSE_VALUES:
        return torus_norm_bound(weight, height, width)
    if weight.shape[2] == weight.shape[3] == 1:
        return matrix_norm_bound(weight[:, :, 0, 0])
    kernel, scale = _wide_kernel(weight)
    if not 0 < scale < math.inf:
        return scale
    return scale * math.sqrt(_largest_eigenvalue(_dense_gram(kernel, height, width))) * ROUNDING


def torus_norm_bound(weight: Tensor, height: int, width: int) -> float:
    """Return an upper bound of the norm of a zero-padded convolution: the norm of a circular one that contains it.

    With r = (k - 1) / 2 the map is R C E: E places the image on a torus of (height + r) x (width + r) points, where
    the padding of opposite sides shares one gap of r zeros, C is the circular convolution there and R a restriction.
    E and R have norm 1, so the norm is at most that of C, the largest over the torus' frequencies w of |K(w)|_2 with
    K(w) = sum_a K_a exp(-i w.a) of shape (out, in) (docs/mathematics.md, Proposition 7). The bound is exact in the
    limit of large maps, and infinite where an entry is not finite.

    Args:
        weight: kernel (out, in, k, k), k odd.
        height: rows of the feature map.
        width: columns of the feature map.
    """
    if weight.shape[2] == weight.shape[3] == 1:
        return matrix_norm_bound(weight[:, :, 0, 0])  # the same at all frequencies
    kernel, scale = _wide_kernel(weight)
    if not 0 < scale < math.inf:
        return scale
    offsets, even, odd = _gram_series(kernel)
    phases = _frequencies(height + kernel.shape[2] // 2, width + kernel.shape[3] // 2) @ offsets.T
    # In random order a chunk seldom holds a larger eigenvalue than all before it.
    phases = phases[torch.randperm(len(phases), generator=torch.Generator().manual_seed(0), device="cpu")]
    channels = len(kernel)
    largest = 0.0
    for chunk in phases.split(max(1, CHUNK_BYTES // (16 * channels**2))):
        gram = torch.complex(chunk.cos() @ even, chunk.sin() @ odd).view(-1, channels, channels)
        largest = _raised(largest, gram)
    return scale * math.sqrt(largest * (1 + CLOSE)) * ROUNDING


def _wide_kernel(weight: Tensor) -> tuple[Tensor, float]:
    """Kernel with out <= in, in float64, of the same norm up to the scale, which makes its largest entry 1.

    The adjoint of a convolution has the transposed and flipped kernel. The scale is infinite for an entry that is not
    finite, and 0 for a kernel of zeros.
    """
    kernel = weight.detach().cpu().double()
    scale = float(kernel.abs().max())
    if not math.isfinite(scale):
        return kernel, math.inf
    if kernel.shape[0] > kernel.shape[1]:
        kernel = kernel.transpose(0, 1).flip(2, 3)
    return kernel / (scale or 1.0), scale


def _range(count: int) -> Tensor:
    """0, ..., count - 1 on the CPU, where all bounds are computed, whatever torch's default device."""
    return torch.arange(count, device="cpu")


def _taps(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets (k*k, 2) of the taps from the centre, and their matrices (k*k, out, in)."""
    rows, columns = kernel.shape[2:]
    offsets = torch.cartesian_prod(_range(rows) - rows // 2, _range(columns) - columns // 2)
    return offsets, kernel.flatten(2).permute(2, 0, 1).contiguous()


def _gram_series(kernel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Offsets d (t, 2) and real coefficients (t, out*out) of K(w) K(w)^* = sum_d cos(w.d) even_d + i sin(w.d) odd_d.

    K(w) K(w)^* = sum_d C_d exp(-i w.d) with C_d = sum_a K_a K_{a-d}^T; as C_{-d} = C_d^T, half of the d suffice.
    """
    places, matrices = _taps(kernel)
    series: dict[tuple[int, int], Tensor] = {}
    for (a, first), (b, second) in itertools.product(zip(places.tolist(), matrices, strict=True), repeat=2):
        offset = (a[0] - b[0], a[1] - b[1])
        if offset >= (0, 0):
            product = first @ second.T
            series[offset] = series[offset] + product if offset in series else product
    even, odd = kernel.new_empty(2, len(series), len(kernel), len(kernel))
    for row, (offset, coefficient) in enumerate(series.items()):
        even[row] = coefficient if offset == (0, 0) else coefficient + coefficient.T
        odd[row] = coefficient.T - coefficient
    return kernel.new_tensor(list(series)), even.flatten(1), odd.flatten(1)


def _frequencies(rows: int, columns: int) -> Tensor:
    """Frequencies (f, 2) of the torus; as a real kernel has conjugate symbols at opposite ones, half of them."""
    down, across = _range(rows).double() / rows, _range(columns // 2 + 1).double() / columns
    return 2 * torch.pi * torch.cartesian_prod(down, across)


def _raised(largest: float, gram: Tensor) -> float:
    """Largest of `largest` and all eigenvalues of Hermitian matrices (b, n, n), up to a relative CLOSE.

    Only for a matrix that is not proven to stay below the largest value so far are eigenvalues computed, those of the
    most promising first.
    """
    left = _exceeding(gram, largest * (1 + CLOSE)).nonzero()[:, 0]
    if len(left) == 0:
        return largest
    promise = _power_iteration(gram)
    while len(left):
        best = left[promise[left].argmax()]
        largest = max(largest, float(torch.linalg.eigvalsh(gram[best])[-1]))
        left = left[left != best]
        left = left[_exceeding(gram[left], largest * (1 + CLOSE))]
    return largest


def _exceeding(gram: Tensor, level: float) -> Tensor:
    """Whether the eigenvalues of each Hermitian matrix (b, n, n) are not proven to be below `level`, bools (b,).

    A Cholesky factorisation of level - G exists only if they are; it costs a small part of the eigenvalues.
    """
    rest = -gram
    rest.diagonal(dim1=-2, dim2=-1).add_(level)
    # In place, to save memory: LAPACK's matrices are transposed, and the transpose has the same eigenvalues.
    info = torch.empty(len(gram), dtype=torch.int32, device="cpu")
    torch.linalg.cholesky_ex(rest.mT, out=(rest.mT, info))
    return info != 0


def _power_iteration(gram: Tensor, steps: int = 6) -> Tensor:
    """Lower estimates (b,) of the largest eigenvalues of Hermitian positive semidefinite matrices (b, n, n)."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(gram.shape[-1], 1, generator=generator, dtype=gram.dtype, device="cpu")
    vectors = (start / start.norm()).expand(len(gram), -1, -1)
    growth = gram.new_zeros(len(gram)).real
    for _ in range(steps):
        images = gram @ vectors
        growth = images.norm(dim=(1, 2))
        vectors = images / growth.clamp_min(torch.finfo(growth.dtype).tiny)[:, None, None]
    return growth


def _dense_gram(kernel: Tensor, height: int, width: int) -> Tensor:
    """T T^* as a matrix (positions * out) squared, for the zero-padded convolution T.

    Its block at positions p, q is the sum of K_a K_b^T over the taps a, b that look at the same place of the map.
    """
    offsets, matrices = _taps(kernel)
    places = torch.cartesian_prod(_range(height), _range(width))
    readers = places - offsets[:, None]  # the position that looks at a place by a tap, (taps, places, 2)
    inside = ((readers >= 0) & (readers < readers.new_tensor([height, width]))).all(-1)
    readers = readers[..., 0] * width + readers[..., 1]
    positions, channels = len(places), len(kernel)
    gram = kernel.new_zeros(positions, channels, positions, channels)
    for a, b in itertools.product(range(len(offsets)), repeat=2):
        both = inside[a] & inside[b]
        if both.any():
            gram[readers[a, both], :, readers[b, both], :] += matrices[a] @ matrices[b].T
    return gram.view(positions * channels, -1)


def _largest_eigenvalue(gram: Tensor) -> float:
    """Upper bound of the largest eigenvalue of a symmetric positive semidefinite matrix.

    Exact up to 1024 rows. Beyond, Lanczos' estimate from below, raised until a Cholesky factorisation proves it: so
    the estimate decides about the distance, never about correctness.
    """
    if not gram.any():
        return 0.0  # Lanczos' method has no direction to start in
    if len(gram) <= ESTIMATED_VALUES:
        return max(0.0, float(torch.linalg.eigvalsh(gram)[-1]))
    from scipy.sparse.linalg import LinearOperator, eigsh

    generator = torch.Generator().manual_seed(0)
    start = torch.randn(len(gram), generator=generator, dtype=gram.dtype, device="cpu").numpy()
    # Products by torch, whose threads would compete with those of numpy.
    operator = LinearOperator(gram.shape, lambda x: (gram @ torch.from_numpy(x)).numpy(), dtype=start.dtype)
    estimate = float(eigsh(operator, k=1, v0=start, tol=1e-4, return_eigenvectors=False)[0])
    margin = 1e-5
    while _exceeding(gram[None], estimate * (1 + margin)).any():
        margin *= 4
    return estimate * (1 + margin)
