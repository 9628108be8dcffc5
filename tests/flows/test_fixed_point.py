"""The fixed-point inverse where rounding decides, and what it returns."""

import pytest
import torch
from bijections import attention, block, disturbed
from torch import Tensor

from acf.errors import ConvergenceError
from acf.flows.fixed_point import invert


def orthogonal(size: int, seed: int = 0) -> Tensor:
    noise = torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(noise)[0]


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("norm", [0.5, 0.9, 0.98, 0.99])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_error_returned_is_that_of_the_solution_returned(norm, dtype, scale):
    # Eigenvalues all around the circle: x is up to 1 / (1 - norm) times longer than y.
    matrix = (norm * orthogonal(32)).to(dtype)
    y = (scale * numbers(50, 32)).to(dtype)
    x, error = invert(lambda z: z @ matrix.T, y, norm)
    truth = torch.linalg.solve(torch.eye(32) + matrix.double(), y.double().T).T
    assert ((x - truth).norm(dim=1) <= error * (1 + 1e-3)).all()
    residual = (y.double() - x.double() - x.double() @ matrix.double().T).norm(dim=1)
    rounding = 4 * torch.finfo(dtype).eps * x.double().norm(dim=1)
    assert (residual <= error.double() * (1 - norm) + rounding).all()


@pytest.mark.parametrize("kind", [{}, attention("l2", 2), attention("dot", 2)])
def test_residual_blocks_with_known_solution(kind):
    torch.manual_seed(0)
    made = disturbed(block((2, 3, 3), **kind).double())
    x = torch.randn(8, 2, 3, 3, dtype=torch.float64)
    with torch.no_grad():
        y = made.transform(x)
    found, error = invert(made.branch, y, made.bound(), tolerance=1e-10)
    true_error = (found - x).flatten(1).norm(dim=1)
    assert (true_error <= error + 1e-13).all()
    assert (error <= 1e-10 * y.flatten(1).norm(dim=1).clamp_min(1)).all()


def test_a_large_shift_within_the_map_is_no_obstacle():
    # x is 1e4 times longer than y, and so is the rounding of its residual.
    matrix, shift = (0.9 * orthogonal(32)).float(), 1e4 * numbers(32).float()
    y = numbers(4, 32).float()
    x, error = invert(lambda z: z @ matrix.T + shift, y, 0.9)
    truth = torch.linalg.solve(torch.eye(32) + matrix.double(), (y - shift).double().T).T
    assert ((x - truth).norm(dim=1) <= 1e-5 * truth.norm(dim=1)).all()
    # The sum y - shift is rounded before it is seen.
    assert ((x - truth).norm(dim=1) <= error + 1e-6 * shift.norm() / (1 - 0.9)).all()


def test_single_precision_stops_soon_after_rounding_ends_progress():
    calls = 0
    matrix = (0.9 * orthogonal(32)).float()

    def g(z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return z @ matrix.T

    _, error = invert(g, numbers(20, 32).float(), 0.9, tolerance=1e-12)
    assert calls < 250
    assert (error > 0).all()


def test_samples_stop_one_by_one():
    sizes = []

    def g(z: Tensor) -> Tensor:
        sizes.append(len(z))
        return 0.9 * z * (z.abs().amax(1, keepdim=True) > 1)

    y = torch.cat([torch.full((1, 4), 0.1), torch.full((3, 4), 50.0)]).double()
    x, _ = invert(g, y, 0.95)
    assert torch.equal(x[0], y[0])
    assert sizes[0] == 4
    assert sizes[-1] < 4


def test_the_message_of_failure_counts_the_samples():
    y = torch.cat([torch.zeros(2, 4), torch.ones(3, 4)]).double()
    with pytest.raises(ConvergenceError, match="3 of 5 samples"):
        invert(lambda z: 2 * z, y, 0.9)


def test_an_empty_batch():
    x, error = invert(lambda z: z, torch.empty(0, 3), 0.5)
    assert x.shape == (0, 3)
    assert error.shape == (0,)
