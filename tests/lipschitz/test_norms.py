"""Bounds of linear maps against the singular values of their dense matrices."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from acf.lipschitz import norms
from acf.lipschitz.norms import ROUNDING, conv_norm_bound, matrix_norm_bound

KERNELS = [1, 3, 5, 7]
SIZES = [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 7), (8, 8), (1, 8), (2, 5), (7, 3)]
CHANNELS = [(1, 1), (1, 3), (4, 2), (3, 3)]


def dense_norm(weight: torch.Tensor, height: int, width: int) -> float:
    """Largest singular value of the zero-padded convolution, column by column from its action on unit maps."""
    count = weight.shape[1] * height * width
    units = torch.eye(count, dtype=torch.float64).view(count, weight.shape[1], height, width)
    columns = F.conv2d(units, weight.double(), padding=weight.shape[-1] // 2).flatten(1)
    return float(torch.linalg.svdvals(columns)[0])


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


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("channels", CHANNELS)
def test_exact_on_small_maps(kernel, channels):
    for (height, width), weight in itertools.product(SIZES, kernels(kernel, channels)):
        exact = dense_norm(weight, height, width) * ROUNDING
        assert conv_norm_bound(weight, height, width) == pytest.approx(exact, rel=1e-9, abs=1e-9)


@pytest.mark.usefixtures("torus_only")
@pytest.mark.parametrize("kernel", KERNELS)
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


@pytest.mark.usefixtures("torus_only")
def test_the_torus_has_one_gap_for_both_paddings():
    weight = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    weight[0, 0, 1] = torch.tensor([1.0, 0.0, -1.0])
    frequencies = torch.arange(5) / 5  # a row of 4 points and a gap of 1
    symbol = 2 * torch.sin(2 * torch.pi * frequencies).abs().max()
    assert conv_norm_bound(weight, 1, 4) == pytest.approx(float(symbol) * ROUNDING, rel=1e-6)


def test_bounds_are_those_of_the_float32_values():
    weight = kernels(3, (3, 3))[0]
    assert conv_norm_bound(weight.float(), 4, 4) == pytest.approx(conv_norm_bound(weight, 4, 4), rel=1e-6)
    assert isinstance(conv_norm_bound(weight.float(), 4, 4), float)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (7, 3), (5, 5)])
def test_matrix_bound(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    planted = left @ torch.diag(values / values[0] * 3) @ right
    assert matrix_norm_bound(planted) == pytest.approx(3 * ROUNDING, rel=1e-12)


def test_zero_and_non_finite_weights():
    assert conv_norm_bound(torch.zeros(2, 2, 3, 3), 4, 4) == 0
    assert matrix_norm_bound(torch.zeros(2, 2)) == 0
    for bad in (float("nan"), float("inf")):
        for bound in (
            conv_norm_bound(torch.full((1, 1, 3, 3), bad), 4, 4),
            conv_norm_bound(torch.full((1, 1, 1, 1), bad), 4, 4),
            matrix_norm_bound(torch.full((2, 2), bad)),
        ):
            assert not bound < 1
