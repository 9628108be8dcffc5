"""Bounds of linear maps against the singular values of their dense matrices."""

import itertools
import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from acf.lipschitz.bounds import norms
from acf.lipschitz.bounds.norms import ROUNDING, conv_norm_bound, matrix_norm_bound, torus_norm_bound

KERNELS = [1, 3, 5, 7]  # also larger than the map
# A kernel of 5 reaches beyond the smallest maps already.
every_kernel = pytest.mark.parametrize(
    "kernel", [pytest.param(kernel, marks=pytest.mark.slow) if kernel == 7 else kernel for kernel in KERNELS]
)
SIZES = [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 7), (8, 8), (1, 8), (2, 5), (7, 3)]
CHANNELS = [(1, 1), (1, 3), (4, 2), (3, 3)]


def dense_norm(weight: torch.Tensor, height: int, width: int) -> float:
    """Largest singular value of the zero-padded convolution, column by column from its action on unit maps."""
    count = weight.shape[1] * height * width
    units = torch.eye(count, dtype=torch.float64).view(count, weight.shape[1], height, width)
    columns = F.conv2d(units, weight.double(), padding=weight.shape[-1] // 2).flatten(1)
    return float(torch.linalg.svdvals(columns)[0])


def torus_norm(weight: torch.Tensor, height: int, width: int) -> float:
    """Largest singular value of the symbol over every frequency of the torus, one by one."""
    taps = torch.arange(weight.shape[-1]).double()
    down, across = (2 * torch.pi * torch.arange(n).double() / n for n in (height, width))
    largest = 0.0
    for y, x in itertools.product(down, across):
        symbol = (weight.double() * torch.exp(-1j * (y * taps[:, None] + x * taps))).sum((2, 3))
        largest = max(largest, float(torch.linalg.svdvals(symbol)[0]))
    return largest


def kernels(kernel: int, channels: tuple[int, int]) -> list[torch.Tensor]:
    """Noise, a kernel of ones, one decaying from its centre, one tap in the corner, a high-pass one."""
    draw = torch.Generator().manual_seed(kernel)
    shape = (channels[1], channels[0], kernel, kernel)
    noise = torch.randn(shape, generator=draw, dtype=torch.float64)
    distance = (torch.arange(kernel) - kernel // 2).abs()
    decay = 0.5 ** (distance[:, None] + distance[None, :]).double()
    corner = torch.zeros(shape, dtype=torch.float64)
    corner[..., 0, -1] = noise[..., 0, 0]
    checkers = (-1.0) ** (torch.arange(kernel)[:, None] + torch.arange(kernel)[None, :]).double()
    return [noise, torch.ones_like(noise), noise.mean((2, 3), keepdim=True) * decay, corner, noise.abs() * checkers]


@pytest.fixture
def torus_only(monkeypatch):
    """Bounds as for large maps, also on small ones."""
    monkeypatch.setattr(norms, "DENSE_POSITIONS", 0)


@every_kernel
@pytest.mark.parametrize("channels", CHANNELS)
def test_exact_on_small_maps(kernel, channels):
    for (height, width), weight in itertools.product(SIZES, kernels(kernel, channels)):
        exact = dense_norm(weight, height, width) * ROUNDING
        assert conv_norm_bound(weight, height, width) == pytest.approx(exact, rel=1e-9, abs=1e-9)


@pytest.mark.usefixtures("torus_only")
@every_kernel
@pytest.mark.parametrize("channels", CHANNELS)
def test_torus_bound_is_above_the_dense_norm(kernel, channels):
    for (height, width), weight in itertools.product(SIZES, kernels(kernel, channels)):
        assert conv_norm_bound(weight, height, width) / ROUNDING >= dense_norm(weight, height, width) * (1 - 1e-12)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [(9, 9), (8, 10), (1, 70)])
def test_bound_on_larger_maps(kernel, size):
    for weight in kernels(kernel, (2, 3)):
        assert conv_norm_bound(weight, *size) / ROUNDING >= dense_norm(weight, *size) * (1 - 1e-12)


@pytest.mark.usefixtures("torus_only")
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("size", [(7, 7), (8, 8)])
def test_torus_bound_is_close(channels, size):
    noise, ones, smooth, *_ = kernels(3, channels)
    for weight in (noise, ones, smooth):
        assert conv_norm_bound(weight, *size) <= 1.15 * dense_norm(weight, *size)


@pytest.mark.usefixtures("torus_only")
def test_torus_bound_falls_to_the_norm_on_large_maps():
    weight = kernels(3, (1, 2))[0]
    ratios = [conv_norm_bound(weight, n, n) / dense_norm(weight, n, n) for n in (4, 8, 16)]
    assert ratios[-1] < 1.02
    assert ratios[0] > ratios[1] > ratios[2]


@pytest.mark.parametrize("channels", CHANNELS)
def test_pointwise_convolution_is_exact(channels):
    weight = kernels(1, channels)[0]
    exact = float(torch.linalg.svdvals(weight[:, :, 0, 0])[0])
    assert conv_norm_bound(weight, 5, 4) == pytest.approx(exact * ROUNDING, rel=1e-12)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("channels", [(1, 1), (2, 5), (6, 3), (4, 4)])
@pytest.mark.parametrize("size", [(1, 1), (2, 1), (4, 4), (5, 6), (9, 4)])
def test_torus_bound_is_the_largest_over_all_frequencies(kernel, channels, size, monkeypatch):
    torus = [n + kernel // 2 for n in size]
    for weight in kernels(kernel, channels):
        expected = torus_norm(weight, *torus) * ROUNDING
        for chunk_bytes in (1, 2000, 2**24):
            monkeypatch.setattr(norms, "CHUNK_BYTES", chunk_bytes)
            assert torus_norm_bound(weight, *size) == pytest.approx(expected, rel=1e-9)


def test_torus_bound_of_a_kernel_wide_on_both_sides():
    weight = torch.randn(48, 80, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for scaled in (weight, 1e-30 * weight, 1e200 * weight):
        assert torus_norm_bound(scaled, 9, 9) == pytest.approx(torus_norm(scaled, 10, 10) * ROUNDING, rel=1e-9)


def test_torus_bound_where_all_frequencies_are_alike():
    weight = torch.zeros(5, 5, 3, 3, dtype=torch.float64)
    weight[:, :, 1, 1] = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0)).double())[0]
    assert torus_norm_bound(2 * weight, 20, 20) == pytest.approx(2 * ROUNDING, rel=1e-9)


@pytest.mark.parametrize(("channels", "size"), [((3, 40), (5, 5)), ((20, 9), (3, 4)), ((12, 12), (1, 6))])
def test_proven_estimates_are_just_above_the_norm(channels, size, monkeypatch):
    monkeypatch.setattr(norms, "ESTIMATED_VALUES", 10)
    for weight in [*kernels(3, channels), *kernels(5, channels)]:
        exact = dense_norm(weight, *size)
        bound = conv_norm_bound(weight, *size) / ROUNDING
        assert exact * (1 - 1e-12) <= bound <= exact * (1 + 1e-4)


def test_proven_estimate_of_a_large_gram_matrix():
    weight = torch.randn(50, 45, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = dense_norm(weight, 5, 5)
    assert exact <= conv_norm_bound(weight, 5, 5) / ROUNDING <= exact * (1 + 1e-4)


def test_a_poor_estimate_still_gives_a_bound(monkeypatch):
    """Started in a direction that misses the largest eigenvalue, Lanczos' estimate is far too small."""
    monkeypatch.setattr(norms, "ESTIMATED_VALUES", 10)
    draw = torch.randn
    monkeypatch.setattr(torch, "randn", lambda n, **kwargs: draw(n, **kwargs) * (torch.arange(n) > 0))
    matrix = torch.diag(torch.tensor([3.0] + [1.0] * 19, dtype=torch.float64))
    assert 3 <= matrix_norm_bound(matrix) < 6


def test_memory_stays_bounded_on_large_maps():
    """The whole symbol has 2.2 GB."""
    code = (
        "import resource, torch\n"
        "from acf.lipschitz.bounds.norms import conv_norm_bound\n"
        "weight = torch.randn(256, 64, 3, 3, generator=torch.Generator().manual_seed(0))\n"
        "conv_norm_bound(weight[:8, :8], 9, 9)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "bound = conv_norm_bound(weight, 128, 128)\n"
        "print(bound, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    bound, kibibytes = done.stdout.split()
    assert 0 < float(bound) < math.inf
    assert float(kibibytes) < 300 * 1024


@pytest.mark.usefixtures("torus_only")
def test_the_torus_has_one_gap_for_both_paddings():
    weight = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    weight[0, 0, 1] = torch.tensor([1.0, 0.0, -1.0])
    frequencies = torch.arange(5) / 5  # a row of 4 points and a gap of 1
    symbol = 2 * torch.sin(2 * torch.pi * frequencies).abs().max()
    assert conv_norm_bound(weight, 1, 4) == pytest.approx(float(symbol) * ROUNDING, rel=1e-6)


@pytest.mark.parametrize("bound", [conv_norm_bound, torus_norm_bound])
def test_bounds_are_those_of_the_float32_values(bound):
    weight = kernels(3, (3, 3))[0].float()
    single, double = bound(weight, 4, 4), bound(weight.double(), 4, 4)
    assert single == double
    assert isinstance(single, float)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (7, 3), (5, 5)])
def test_matrix_bound(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    planted = left @ torch.diag(values / values[0] * 3) @ right
    assert matrix_norm_bound(planted) == pytest.approx(3 * ROUNDING, rel=1e-12)


def test_a_matrix_of_many_values_has_a_bound_just_above_its_norm():
    matrix = torch.randn(1050, 1100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = float(torch.linalg.matrix_norm(matrix, 2))
    assert exact <= matrix_norm_bound(matrix) / ROUNDING <= exact * (1 + 1e-4)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("bound", [conv_norm_bound, torus_norm_bound])
def test_zero_and_non_finite_kernels(kernel, bound):
    assert bound(torch.zeros(2, 3, kernel, kernel), 4, 4) == 0
    for bad in (math.nan, math.inf, -math.inf):
        weight = torch.ones(2, 3, kernel, kernel)
        weight[1, 2, 0, 0] = bad
        assert bound(weight, 4, 4) == math.inf
        assert bound(weight, 9, 9) == math.inf


def test_zero_and_non_finite_matrices():
    assert matrix_norm_bound(torch.zeros(2, 3)) == 0
    for bad in (math.nan, math.inf, -math.inf):
        assert matrix_norm_bound(torch.tensor([[1.0, bad], [0.0, 1.0]])) == math.inf


def test_a_kernel_whose_taps_never_meet_the_map_is_zero(monkeypatch):
    monkeypatch.setattr(norms, "ESTIMATED_VALUES", 1)
    weight = torch.zeros(4, 4, 3, 3)
    weight[..., 0, 0] = 1
    assert conv_norm_bound(weight, 1, 1) == 0
