"""The iteration of training: the solution of the careful one, sample by sample, or an answer that it has none."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from acf.errors import ConvergenceError
from acf.flows import implicit, monotone_gradient
from acf.flows.fixed_point import StoppingRule, iterate_each
from acf.flows.implicit import solve_adjoint
from acf.flows.iteration_together import LEAST_RESIDUAL, Arrived, _combination, iterate_together
from acf.flows.monotone import UnsolvedBlockError
from acf.lipschitz.normalised import Normalised
from tests.building_blocks.noise import noise
from tests.flows.test_monotone import SHAPE, made

RULE = StoppingRule(1e-4)


def map_of(lipschitz: float, values: int = 12) -> Callable[[Tensor], Tensor]:
    matrix = noise(values, values, seed=7)
    matrix = lipschitz * matrix / torch.linalg.matrix_norm(matrix, 2)
    return lambda x: torch.sin(x) @ matrix.T.to(x.dtype) + 1


def solved(g: Callable[[Tensor], Tensor], y: Tensor, rule: StoppingRule = RULE) -> Arrived[Tensor]:
    found = iterate_together(lambda x: (g(x), x.clone()), y, rule)
    assert found is not None
    return found


@pytest.mark.parametrize("lipschitz", [0.0, 0.3, 0.7, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_solution_is_that_of_the_careful_iteration(lipschitz: float, dtype: torch.dtype) -> None:
    g, y = map_of(lipschitz), 3 * noise(20, 12).to(dtype)
    found, careful = solved(g, y), iterate_each(lambda x, _: g(x), y, StoppingRule(1e-7))
    goal = RULE.relative_residual * y.norm(dim=1).clamp_min(1)
    assert ((y - found.x - g(found.x)).norm(dim=1) <= 1.01 * goal).all()
    assert ((found.x - careful.x).norm(dim=1) <= 1.1 * goal / (1 - lipschitz)).all()


def test_the_last_evaluation_is_that_at_the_solution() -> None:
    g = map_of(0.6)
    found = solved(g, noise(9, 12) * torch.logspace(-2, 2, 9, dtype=torch.float64)[:, None])
    assert torch.equal(found.beside, found.x)
    assert torch.equal(found.value, g(found.x))
    assert found.evaluations > 2


def test_a_sample_does_not_depend_on_the_others() -> None:
    g, y = map_of(0.6), noise(9, 12) * torch.logspace(-3, 2, 9, dtype=torch.float64)[:, None]
    alone = [solved(g, sample) for sample in y.split(1)]
    assert len({found.evaluations for found in alone}) > 1
    torch.testing.assert_close(torch.cat([found.x for found in alone]), solved(g, y).x, rtol=1e-11, atol=1e-12)


def test_few_evaluations_are_enough() -> None:
    g, y = map_of(0.7), noise(30, 12)
    careful = iterate_each(lambda x, _: g(x), y, RULE, memory=2)
    assert solved(g, y).evaluations <= careful.evaluations.max() + 1


@pytest.mark.parametrize("count", [2, 3])
def test_the_combination_has_the_smallest_residual(count: int) -> None:
    residuals = noise(5, count, 8)
    weights = _combination(residuals, 1)
    differences, newest = (residuals - residuals[:, :1])[:, 1:], residuals[:, 0]
    fitted = torch.linalg.lstsq(differences.mT, -newest.unsqueeze(2)).solution.squeeze(2)
    torch.testing.assert_close(weights, torch.cat([1 - fitted.sum(1, keepdim=True), fitted], 1))


@pytest.mark.parametrize("count", [2, 3])
def test_residuals_that_determine_no_combination_leave_the_newest(count: int) -> None:
    weights = _combination(noise(4, 1, 8).expand(4, count, 8), 1)
    torch.testing.assert_close(weights, torch.eye(count, dtype=weights.dtype)[1].expand(4, count))


def test_residuals_on_a_line_leave_the_combination_of_the_last_two() -> None:
    factors = torch.tensor([4.0, 1.0, 2.0], dtype=torch.float64)  # the newest is the second
    weights = _combination(noise(6, 1, 8) * factors[:, None], 1)
    torch.testing.assert_close(weights, torch.tensor([[-1 / 3, 4 / 3, 0]], dtype=torch.float64).expand(6, 3))


@pytest.mark.parametrize("factor", [0.9, -0.9])
def test_one_dimension_is_accelerated(factor: float) -> None:
    g = lambda x: factor * torch.tanh(x)  # noqa: E731
    assert solved(g, 2 * noise(20, 1), StoppingRule(1e-3)).evaluations <= 8


def test_a_sample_that_is_not_finite_costs_the_others_no_evaluation() -> None:
    y, evaluated = noise(6, 12), []
    g = map_of(0.5)
    needed = solved(g, y).evaluations
    y[2] = torch.nan

    def evaluate(x: Tensor) -> tuple[Tensor, None]:
        evaluated.append(x)
        return g(x), None

    assert iterate_together(evaluate, y, RULE) is None
    assert len(evaluated) <= needed


@pytest.mark.parametrize("case", ["tight", "slow", "expanding", "nan", "too large"])
def test_what_is_not_solved_in_a_few_evaluations_is_left(case: str) -> None:
    y = noise(4, 12)
    if case == "nan":
        y[1, 2] = torch.nan
    if case == "too large":
        y[1, 2] = 1e200  # whose square is infinite
    slow = torch.linspace(-0.99, 0.99, 12, dtype=y.dtype)
    maps = {"slow": lambda x: slow * x, "expanding": lambda x: 3 * x * x}
    rule = StoppingRule(LEAST_RESIDUAL / 2) if case == "tight" else RULE
    assert iterate_together(lambda x: (maps.get(case, map_of(0.5))(x), None), y, rule) is None


def test_adjoint_equations_that_are_left_are_solved_all_the_same() -> None:
    factors = torch.linspace(-0.99, 0.99, 12, dtype=torch.float64)
    c = noise(3, 12)
    u = solve_adjoint(lambda v: v.mul_(factors), c.clone(), RULE)
    assert ((c - u - factors * u).norm(dim=1) <= 1.01e-4 * c.norm(dim=1)).all()
    with pytest.raises(ConvergenceError, match="3 of 3 samples have a residual that grows"):
        solve_adjoint(lambda v: 3 * v, c, RULE)


def test_a_cotangent_without_a_solution_stays_apart() -> None:
    j, c = torch.tensor([0.5, torch.nan, 0.5, 0.2]).double()[:, None], noise(4, 5)
    c[2, 0] = torch.inf
    u = solve_adjoint(lambda v: j[: len(v)] * v, c, RULE)
    assert u[1:3].isnan().all()
    torch.testing.assert_close(u[[0, 3]], (c / (1 + j))[[0, 3]], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["conv", "dense", "sinkhorn"])
@pytest.mark.parametrize("slices", [1, 3])
def test_training_is_that_of_the_careful_iteration(kind: str, slices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def step() -> tuple[Tensor, ...]:
        block = made(kind, training_log_det={"solve_residual": 1e-4}).train()
        torch.manual_seed(3)
        x = noise(6, *SHAPE).requires_grad_()
        y, log_abs_det = block(x)
        loss = (noise(6, *SHAPE, seed=1) * y).sum() + (log_abs_det * torch.arange(6)).sum()
        return y, log_abs_det, *torch.autograd.grad(loss, [x, *block.parameters()])

    parts = [slice(start, start + 6 // slices) for start in range(0, 6, 6 // slices)]
    for module in (monotone_gradient, implicit):
        monkeypatch.setattr(module, "samples_at_a_time", lambda *_: iter(parts))
    found = step()
    for module in (monotone_gradient, implicit):
        monkeypatch.setattr(module, "iterate_together", lambda *_: None)
    for one, other in zip(found, step(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=3e-3 * float(other.detach().abs().max()))


def test_a_branch_that_is_no_contraction_is_named_in_training() -> None:
    block = made("conv").train()
    layer = next(m for m in block.modules() if isinstance(m, Normalised))
    layer.weight.data *= 1e3
    layer.left.zero_()  # so that the estimated norm is 0, and nothing is scaled down
    x = noise(4, *SHAPE)
    with pytest.raises(UnsolvedBlockError, match="its forward map has no solution"):
        block(x.requires_grad_())
