"""The fixed-point inverse on maps with known solutions: its bounds, its safeguard, its speed, its refusals."""

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from acf.errors import ConvergenceError, NotContractiveError
from acf.flows.fixed_point import invert

Map = Callable[[Tensor], Tensor]


def numbers(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@functools.cache
def orthogonal(size: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(numbers(size, size, seed=seed))[0]


def symmetric(low: float, high: float, size: int = 32) -> Tensor:
    """Eigenvalues evenly spread from `low` to `high`."""
    basis = orthogonal(size)
    return basis * torch.linspace(low, high, size, dtype=torch.float64) @ basis.T


def solution_of(matrix: Tensor, y: Tensor) -> Tensor:
    matrix = matrix.double()
    return torch.linalg.solve(torch.eye(len(matrix), dtype=torch.float64) + matrix, y.double().T).T


class Recorder:
    """A map that counts its evaluations per call and keeps the residuals' norms of a single sample."""

    def __init__(self, g: Map, y: Tensor) -> None:
        self.g, self.y = g, y
        self.sizes: list[int] = []
        self.residuals: list[float] = []

    def __call__(self, x: Tensor) -> Tensor:
        value = self.g(x)
        self.sizes.append(len(x))
        if len(self.y) == 1:
            self.residuals.append(float((self.y - x - value).norm()))
        return value


@pytest.mark.parametrize("norm", [0.1, 0.9, 0.98])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-3, 1e3])
@pytest.mark.parametrize("spectrum", ["circle", "both signs", "negative"])
@pytest.mark.parametrize("memory", [0, 8])
def test_the_bound_is_that_of_the_solution_returned(norm, dtype, scale, spectrum, memory):
    # With negative eigenvalues x is up to 1 / (1 - norm) times longer than y.
    matrix = {
        "circle": norm * orthogonal(32),
        "both signs": symmetric(-norm, norm),
        "negative": symmetric(-norm, 0),
    }[spectrum].to(dtype)
    y = (scale * numbers(20, 32)).to(dtype)
    found = invert(lambda z: z @ matrix.T, y, norm * (1 + 1e-6), memory=memory)
    error = (found.x - solution_of(matrix, y)).norm(dim=1)
    assert bool((error <= found.bound.double() * (1 + 1e-3)).all())
    goal = (1e-5 if dtype == torch.float32 else 1e-12) * y.double().norm(dim=1).clamp_min(1)
    rounding = 36 * torch.finfo(dtype).eps * torch.maximum(found.x.double().norm(dim=1), y.double().norm(dim=1))
    assert bool((found.bound <= goal + rounding.clamp_min(36 * torch.finfo(dtype).eps) / (1 - norm)).all())


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-10])
def test_the_tolerance_is_kept(tolerance):
    matrix = symmetric(-0.9, 0.9)
    y = numbers(20, 32) * torch.logspace(-2, 3, 20, dtype=torch.float64)[:, None]
    found = invert(lambda z: z @ matrix.T, y, 0.91, tolerance)
    size = y.norm(dim=1).clamp_min(1)
    assert bool(((found.x - solution_of(matrix, y)).norm(dim=1) <= tolerance * size).all())
    assert bool((found.bound <= tolerance * size + 1e-11).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_solution_is_returned_above_its_tolerance(dtype):
    matrix, y = (0.6 * orthogonal(32)).to(dtype), (3 * numbers(2000, 32)).to(dtype)
    found = invert(lambda z: z @ matrix.T, y, 0.94)
    x, size = found.x.double(), y.double().norm(dim=1).clamp_min(1)
    residual = (y.double() - x - x @ matrix.double().T).norm(dim=1) / (1 - 0.94)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    # The residual of float64 matrices is itself off by rounding.
    assert bool((residual <= tolerance * size + 4 * 2.3e-16 * size / (1 - 0.94)).all())
    if dtype == torch.float64:
        assert bool((found.bound <= tolerance * size).all())


@pytest.mark.parametrize("spectrum", ["rotation", "both signs"])
@pytest.mark.parametrize("memory", [0, 8])
def test_no_residual_is_below_the_smallest_of_its_krylov_space(spectrum, memory):
    matrix = 0.9 * orthogonal(16) if spectrum == "rotation" else symmetric(-0.9, 0.9, 16)
    y, whole = numbers(1, 16), torch.eye(16, dtype=torch.float64) + matrix
    seen = Recorder(lambda z: z @ matrix.T, y)
    invert(seen, y, 0.9 * (1 + 1e-6), tolerance=1e-6, memory=memory)
    start = y[0] - whole @ y[0]
    powers = [start]
    for count, residual in enumerate(seen.residuals[1:12], start=1):
        powers.append(whole @ powers[-1])
        images = torch.linalg.qr(torch.stack(powers[1:], 1))[0]
        floor = float((start - images @ (images.T @ start)).norm())
        assert residual >= floor * (1 - 1e-6)
        assert memory == 0 or residual <= 100 * floor, f"floor at {count} evaluations says little"


def test_solutions_that_agree_with_one_residual_fill_a_ball():
    x, r = numbers(2, 8, seed=2)
    bound = 0.8
    centre, radius = x + r / (1 - bound**2), bound * r.norm() / (1 - bound**2)
    for seed in range(50):  # g(z) = y - x - r + G (z - x) for |G| = bound has its solution at x + (I + G)^-1 r
        step = torch.linalg.solve(torch.eye(8, dtype=torch.float64) + bound * orthogonal(8, seed), r)
        assert abs(float((x + step - centre).norm() / radius) - 1) < 1e-12
    for sign in (-1, 1):  # the ball's poles; the far one is as far as Proposition 8 allows
        assert torch.allclose(x + r / (1 + sign * bound), centre - sign * radius * r / r.norm(), rtol=0, atol=1e-12)


MAPS: dict[str, tuple[float, Map]] = {
    "rotation": (0.98, lambda z: 0.98 * z @ orthogonal(32).T),
    "both signs": (0.98, lambda z: z @ symmetric(-0.98, 0.98).T),
    "kinks": (0.95, lambda z: -0.95 * (z @ orthogonal(32).T).abs()),
    "folds": (0.9, lambda z: 0.9 * ((z @ orthogonal(32).T * 5 + 1).remainder(4) - 2).abs() @ orthogonal(32) / 5),
}


@pytest.mark.parametrize("name", MAPS)
def test_the_safeguard_keeps_the_rate_of_plain_iteration(name):
    bound, g = MAPS[name]
    rejected = 0
    for seed in range(5):
        y = 3 * numbers(1, 32, seed=seed)
        seen = Recorder(g, y)
        found = invert(seen, y, bound, tolerance=1e-8)
        start, best = seen.residuals[0], seen.residuals[0]
        for count, residual in enumerate(seen.residuals[1:], start=1):
            rejected += residual > bound * best * (1 + 1e-9)
            best = min(best, residual)
            assert best <= bound ** (count // 2) * start * (1 + 1e-9)
        assert float(found.bound) >= best / (1 - bound)
        assert int(found.evaluations) == len(seen.residuals)
    if name in ("kinks", "folds"):
        assert rejected > 0, "the safeguard was never needed, so nothing was shown"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_acceleration_pays_where_the_spectrum_reaches_the_bound(dtype):
    matrix = symmetric(-0.98, 0.98, 512).to(dtype)
    y = numbers(4, 512).to(dtype)
    plain = invert(lambda z: z @ matrix.T, y, 0.981, memory=0)
    found = invert(lambda z: z @ matrix.T, y, 0.981)
    assert bool((3 * found.evaluations <= plain.evaluations).all())


def test_dependent_secants_are_no_obstacle():
    # In two dimensions eight secants are dependent from the third on; constant maps have none that differ from zero.
    matrix = symmetric(-0.9, 0.9, 2)
    y = numbers(6, 2)
    found = invert(lambda z: z @ matrix.T, y, 0.91)
    assert torch.allclose(found.x, solution_of(matrix, y), rtol=0, atol=1e-11)
    assert int(found.evaluations.max()) <= 6
    constant = invert(lambda z: torch.ones_like(z), y, 0.5)
    assert torch.allclose(constant.x, y - 1, rtol=0, atol=1e-14)
    assert int(constant.evaluations.max()) == 2


def test_a_large_shift_within_the_map_is_no_obstacle():
    # x is 1e4 times longer than y, and so is the rounding of its residual.
    matrix, shift = (0.9 * orthogonal(32)).float(), 1e4 * numbers(32).float()
    y = numbers(4, 32).float()
    found = invert(lambda z: z @ matrix.T + shift, y, 0.9 + 1e-6)
    truth = solution_of(matrix, y - shift)
    assert bool(((found.x - truth).norm(dim=1) <= 1e-5 * truth.norm(dim=1)).all())
    # The sum y - shift is rounded before it is seen.
    assert bool(((found.x - truth).norm(dim=1) <= found.bound + 1e-6 * shift.norm() / (1 - 0.9)).all())


@pytest.mark.parametrize("memory", [0, 8])
def test_single_precision_stops_soon_after_rounding_ends_progress(memory):
    matrix = (0.9 * orthogonal(32)).float()
    found = invert(lambda z: z @ matrix.T, numbers(20, 32).float(), 0.9 + 1e-6, tolerance=1e-12, memory=memory)
    assert int(found.evaluations.max()) < 250
    assert bool((found.bound > 0).all())


def test_samples_stop_one_by_one():
    y = torch.cat([torch.full((1, 4), 0.1), torch.full((3, 4), 50.0)]).double()
    seen = Recorder(lambda z: 0.9 * z * (z.abs().amax(1, keepdim=True) > 1), y)
    found = invert(seen, y, 0.95)
    assert torch.equal(found.x[0], y[0])
    assert found.evaluations[0] == 1
    assert seen.sizes[:2] == [4, 3]
    assert sum(seen.sizes) == int(found.evaluations.sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_sample_has_the_same_solution_alone_and_in_any_batch(dtype):
    matrix = symmetric(-0.98, 0.98).to(dtype)

    def g(z: Tensor) -> Tensor:  # row by row, as products of matrices round differently in other company
        return torch.stack([matrix @ row for row in z])

    easy, hard = orthogonal(32).T[:3], 5 * numbers(3, 32)  # eigenvectors are solved by one secant
    samples = torch.cat([easy, hard]).to(dtype)
    alone = [invert(g, sample[None], 0.981) for sample in samples]
    assert 3 * int(alone[0].evaluations) < int(alone[-1].evaluations)
    for company in (torch.arange(6), torch.tensor([5, 0]), torch.tensor([1, 2]), torch.tensor([4, 3, 1])):
        together = invert(g, samples[company], 0.981)
        for row, index in enumerate(company.tolist()):
            difference = (together.x[row] - alone[index].x[0]).norm()
            rounding = 50 * torch.finfo(dtype).eps * samples[index].norm().clamp_min(1) / (1 - 0.981)
            assert float(difference) <= float(rounding)


def test_a_map_that_is_not_contractive_is_refused():
    for bound in (1.0, 1.5, float("inf"), float("nan")):
        with pytest.raises(NotContractiveError, match="not below 1"):
            invert(lambda z: 0.5 * z, numbers(3, 12), bound)


@pytest.mark.parametrize("memory", [0, 8])
@pytest.mark.parametrize("factor", [1.5, 1.01, -1.0, -2.0])
def test_a_bound_that_the_map_exceeds_is_refused(memory, factor):
    y = numbers(3, 12)
    with pytest.raises(ConvergenceError, match=r"3 of 3 samples refute the Lipschitz bound 0\.9000"):
        invert(lambda z: factor * z @ orthogonal(12).T.roll(1, 0), y, 0.9, memory=memory)


def test_only_the_samples_that_fail_are_counted():
    y = torch.cat([torch.zeros(2, 4), torch.ones(3, 4)]).double()
    with pytest.raises(ConvergenceError, match="3 of 5 samples refute"):
        invert(lambda z: 2 * z, y, 0.9)


def test_too_few_evaluations():
    matrix = symmetric(-0.98, 0.98)
    with pytest.raises(ConvergenceError, match="3 of 3 samples did not converge within 5 evaluations"):
        invert(lambda z: z @ matrix.T, numbers(3, 32), 0.981, max_evaluations=5)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("memory", [0, 8])
def test_values_that_are_not_finite_are_refused(value, memory):
    y = numbers(3, 12)
    with pytest.raises(ConvergenceError, match="3 of 3 samples have a residual that is not finite"):
        invert(lambda z: z * value, y, 0.9, memory=memory)
    y[1, 4] = value
    with pytest.raises(ConvergenceError, match="1 of 3 samples have a residual that is not finite"):
        invert(lambda z: 0.5 * z, y, 0.9, memory=memory)


def test_a_map_that_breaks_later_is_refused():
    y = numbers(3, 12)
    with pytest.raises(ConvergenceError, match="3 of 3 samples have a residual that is not finite"):
        invert(lambda z: torch.where(torch.equal(z, y) * torch.ones_like(z) > 0, 0.5 * z, torch.nan), y, 0.9)


@pytest.mark.parametrize("shape", [(0, 3), (0, 2, 4, 4)])
def test_an_empty_batch(shape):
    found = invert(lambda z: z, torch.empty(shape), 0.5)
    assert found.x.shape == shape
    assert found.bound.shape == found.evaluations.shape == (0,)
