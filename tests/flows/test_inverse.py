"""The inverse: error bounds that hold, refusal instead of a wrong answer."""

import pytest
import torch
from cases import residual, strengthen
from torch import Tensor

from acf.errors import ConvergenceError, NotContractiveError
from acf.flows.fixed_point import invert


def linear(norm: float, size: int = 12, seed: int = 0) -> Tensor:
    """A random matrix with the given spectral norm and eigenvalues of both signs."""
    a = torch.randn(size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    a = (a + a.T) / 2
    return norm * a / torch.linalg.matrix_norm(a, 2)


@pytest.mark.parametrize("norm", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-10])
def test_the_returned_error_bounds_the_true_one(norm: float, tolerance: float) -> None:
    matrix = linear(norm)
    solution = torch.randn(20, 12, dtype=torch.float64) * torch.logspace(-2, 3, 20, dtype=torch.float64)[:, None]
    y = solution + solution @ matrix
    x, bound = invert(lambda z: z @ matrix, y, norm, tolerance, most=20000)
    error = (x - solution).norm(dim=1)
    assert bool((error <= bound).all())
    assert bool((bound <= tolerance * y.norm(dim=1).clamp_min(1) + 1e-11 / (1 - norm)).all())


def test_single_precision_stops_at_the_level_of_rounding() -> None:
    matrix = linear(0.97).float()
    solution = torch.randn(20, 12)
    x, bound = invert(lambda z: z @ matrix, solution + solution @ matrix, 0.97, tolerance=1e-12, most=5000)
    error = (x - solution).norm(dim=1)
    assert float(error.max()) < 1e-3
    assert bool((error.double() <= 3 * bound.double() + 1e-5).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_batch_a_sample_comes_in_does_not_matter(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    block = residual((2, 4, 4), attention={"kind": "l2", "heads": 2}).to(dtype).eval()
    strengthen(block)
    y = torch.randn(9, 2, 4, 4, dtype=dtype) * torch.logspace(-1, 1, 9, dtype=dtype).view(-1, 1, 1, 1)
    together = block.inverse(y)
    alone = torch.cat([block.inverse(part) for part in y.split(1)])
    torch.testing.assert_close(together, alone, atol=1e-5 if dtype == torch.float32 else 1e-11, rtol=0)


def test_a_map_that_is_not_contractive_is_refused() -> None:
    y = torch.randn(3, 12, dtype=torch.float64)
    with pytest.raises(NotContractiveError, match="not below 1"):
        invert(lambda z: 0.5 * z, y, 1.0)
    with pytest.raises(NotContractiveError):
        invert(lambda z: 0.5 * z, y, float("nan"))


def test_a_wrong_bound_or_too_few_steps_end_in_an_error() -> None:
    y = torch.randn(3, 12, dtype=torch.float64)
    expanding = linear(1.5)
    with pytest.raises(ConvergenceError, match="3 of 3 samples"):
        invert(lambda z: z @ expanding, y, 0.9)
    slow = -linear(0.99).abs()
    slow = 0.99 * slow / torch.linalg.matrix_norm(slow, 2)
    with pytest.raises(ConvergenceError, match="within 5 steps"):
        invert(lambda z: z @ slow, y, 0.99, tolerance=1e-8, most=5)
    with pytest.raises(ConvergenceError):
        invert(lambda z: z * float("nan"), y, 0.9)
