"""Doubly stochastic scaling: what it converges to, how fast, and all its derivatives."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from acf.lipschitz.kernels import balance
from acf.lipschitz.kernels.balance import System, doubly_stochastic
from tests.building_blocks.noise import noise


def clusters(n: int, first: int) -> Tensor:
    """Two clusters of n tokens together, close within and far between; in [-1, 1]."""
    sign = torch.ones(n, dtype=torch.float64)
    sign[first:] = -1
    return torch.outer(sign, sign)


def chequered(n: int) -> Tensor:
    i = torch.arange(n)
    return (1 - 2 * ((i[:, None] + i) % 2)).double()


def one_key(n: int) -> Tensor:
    logits = -torch.ones(n, n, dtype=torch.float64)
    logits[:, 0] = 1
    return logits


def triangle(n: int) -> Tensor:
    return (2 * (torch.arange(n)[:, None] >= torch.arange(n)) - 1).double()


PATTERNS = {
    "noise": (2 * torch.rand(7, 7, generator=torch.Generator().manual_seed(0)) - 1).double(),
    "low rank": torch.nn.functional.normalize(noise(8, 2), dim=1) @ torch.nn.functional.normalize(noise(2, 8), dim=0),
    "clusters 2 + 1": clusters(3, 2),
    "clusters 8 + 1": clusters(9, 8),
    "clusters 5 + 3": clusters(8, 5),
    "chequered": chequered(7),
    "one key": one_key(6),
    "one query": one_key(6).T,
    "triangle": triangle(5),
    "constant": torch.ones(4, 4, dtype=torch.float64),
}
LOGITS = pytest.mark.parametrize("name", sorted(PATTERNS))
# Alternations after which tanh(t)^2 per alternation has nothing left to take away.
ENOUGH = {0.1: 40, 1.0: 150, 2.0: 1000}
SHARPNESS = pytest.mark.parametrize("t", sorted(ENOUGH))


def plain(logits: Tensor, times: int) -> tuple[Tensor, Tensor]:
    """(log of the column scalings after `times` alternations, the matrix they belong to), rows scaled last."""
    kernel, right = logits.exp(), torch.ones_like(logits[..., 0, :, None])
    for _ in range(times):
        right = 1 / (kernel.mT @ (1 / (kernel @ right)))
    return right.squeeze(-1).log(), kernel * right.mT / (kernel @ right)


def spread(x: Tensor) -> float:
    return float(x.max() - x.min())


@LOGITS
@SHARPNESS
def test_rows_and_columns_sum_to_one(name, t):
    p = doubly_stochastic(t * PATTERNS[name])
    eps = torch.finfo(torch.float64).eps
    assert (p > 0).all()
    assert (p.sum(-1) - 1).abs().max() <= 4 * eps
    assert (p.sum(-2) - 1).abs().max() <= 40 * eps


@LOGITS
@SHARPNESS
def test_is_a_scaling_of_rows_and_columns(name, t):
    logits = t * PATTERNS[name]
    rest = doubly_stochastic(logits).log() - logits
    rest = rest - rest.mean(0, keepdim=True)
    assert (rest - rest.mean(1, keepdim=True)).abs().max() <= 1e-13 * (1 + t)


@LOGITS
@SHARPNESS
def test_equals_the_limit_of_plain_alternation(name, t):
    logits = t * PATTERNS[name]
    assert torch.allclose(doubly_stochastic(logits), plain(logits, ENOUGH[t])[1], rtol=0, atol=1e-14)
    single = doubly_stochastic(logits.float())
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), plain(logits, ENOUGH[t])[1], rtol=0, atol=1e-5)
    assert (single.sum(-1) - 1).abs().max() <= 1e-6
    assert (single.sum(-2) - 1).abs().max() <= 1e-5


def test_two_tokens_in_closed_form():
    for a, b, c, d in itertools.product((-2.0, 0.3, 2.0), repeat=4):
        p = doubly_stochastic(torch.tensor([[a, b], [c, d]], dtype=torch.float64))
        # The odds ratio survives the scaling, and p on the diagonal, 1 - p off it, have odds ratio (p / (1 - p))^2.
        assert float(p[0, 0]) == pytest.approx(1 / (1 + math.exp(-(a + d - b - c) / 2)), rel=1e-12)
        assert float(p[0, 1]) == pytest.approx(float(p[1, 0]), rel=1e-12)


def test_shifts_of_rows_and_columns_do_not_matter():
    logits = noise(5, 5)
    moved = logits + noise(5, 1, seed=1) + noise(1, 5, seed=2)
    assert torch.allclose(doubly_stochastic(moved), doubly_stochastic(logits), rtol=1e-12)
    assert torch.allclose(doubly_stochastic(logits.T), doubly_stochastic(logits).T, rtol=1e-12)


def test_one_token_has_weight_one():
    logits = torch.full((3, 1, 1), 1.7, dtype=torch.float64, requires_grad=True)
    p = doubly_stochastic(logits)
    assert torch.equal(p, torch.ones_like(p))
    assert torch.autograd.grad(p.sum(), logits)[0].abs().max() < 1e-14


@pytest.mark.parametrize("batch", [(), (1,), (3,), (2, 3), (2, 1, 2)])
def test_every_matrix_of_a_batch_is_scaled_by_itself(batch):
    logits = 0.7 * noise(*batch, 4, 4)
    p = doubly_stochastic(logits)
    assert p.shape == logits.shape
    for single, expected in zip(logits.view(-1, 4, 4), p.view(-1, 4, 4), strict=True):
        assert torch.allclose(doubly_stochastic(single), expected, rtol=0, atol=1e-14)


# How fast: Birkhoff's contraction of the projective metric.


@LOGITS
@SHARPNESS
def test_alternations_contract_by_the_squared_tangent(name, t):
    """The logarithms of the scalings differ from their limit by at most 2 t tanh(t)^(2 T), up to a constant."""
    logits = t * PATTERNS[name]
    limit = plain(logits, ENOUGH[t])[0]
    for times in (0, 1, 2, 3, 5, 10, 30):
        assert spread(plain(logits, times)[0] - limit) <= 2 * t * math.tanh(t) ** (2 * times) + 1e-13


@LOGITS
@SHARPNESS
def test_column_sums_tell_how_far_the_limit_is(name, t):
    logits = t * PATTERNS[name]
    limit, exact = plain(logits, ENOUGH[t])
    for times in (0, 1, 2, 3, 5, 10, 30):
        right, p = plain(logits, times)
        h = spread(right - limit)
        assert h <= math.cosh(t) ** 2 * spread(p.sum(-2).log()) + 1e-13
        assert float((p - exact).abs().sum(-1).max()) <= math.expm1(h) + 1e-13


def test_the_rate_is_attained():
    """For two equal clusters at a distance the rate is tanh(t)^2 itself: the bound cannot be lowered."""
    t = 1.0
    logits = t * clusters(2, 1) + 1e-3 * torch.tensor([[1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    logits = logits + torch.tensor([0.3, 0.0], dtype=torch.float64)  # a start away from the limit
    limit = plain(logits, ENOUGH[t])[0]
    distances = [spread(plain(logits, times)[0] - limit) for times in (5, 6)]
    assert distances[1] / distances[0] == pytest.approx(math.tanh(t) ** 2, rel=2e-3)


# Steps fixed in number, as on devices where the host does not wait for a test of convergence.


@pytest.fixture(params=["inverses", "conjugate gradients"])
def fixed_steps(request, monkeypatch):
    monkeypatch.setattr(balance, "_known_without_waiting", lambda x: False)
    monkeypatch.setattr(balance, "_largest_inverted", lambda device, limit: 1000 if request.param == "inverses" else 0)


def hard_logits(dtype: torch.dtype) -> list[Tensor]:
    """Logits in [-2, 2] that a plain alternation takes tens to hundreds of steps for; batches (count, n, n)."""
    generator = torch.Generator().manual_seed(0)
    found = [2 * pattern[None] for pattern in PATTERNS.values()] + [2 * triangle(n)[None] for n in (9, 33)]
    for n in (8, 16, 33):
        a, b, share = (torch.rand(20, *shape, generator=generator) for shape in ((n, 1), (1, n), (1, 1)))
        found.append(4.0 * (torch.rand(20, n, n, generator=generator) > share) - 2)
        found.append(4.0 * (a**3 + b**3 > 0.5) - 2)
        q, k = (torch.randn(20, n, 3, generator=generator) for _ in "qk")
        q, k = (x + 2 * torch.randn(20, 1, 3, generator=generator) for x in (q, k))
        found.append(2 * torch.nn.functional.normalize(q, dim=-1) @ torch.nn.functional.normalize(k, dim=-1).mT)
    return [logits.to(dtype) for logits in found]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_fixed_number_of_steps_balances_hard_logits(fixed_steps, dtype):
    eps = torch.finfo(dtype).eps
    for logits in hard_logits(dtype):
        p = doubly_stochastic(logits)
        assert (p.sum(-1) - 1).abs().max() <= 8 * eps
        assert (p.sum(-2) - 1).abs().max() <= 40 * eps


def test_a_fixed_number_of_steps_balances_the_worst_logits_found_by_ascent(fixed_steps, monkeypatch):
    """Gradient ascent on the error that one alternation and two Newton steps less leave, logits kept in [-2, 2]."""
    free = noise(6, 9, 9, seed=4).requires_grad_(True)
    optimiser = torch.optim.Adam([free], lr=0.2)
    for _ in range(60):
        logits = 2 * torch.tanh(free)
        right = torch.ones_like(logits[:, :1])
        for _ in range(8):
            right = 1 / ((1 / (right @ logits.exp().mT)) @ logits.exp())
        columns = right * ((1 / (right @ logits.exp().mT)) @ logits.exp())
        loss = -(columns.log().amax(-1) - columns.log().amin(-1)).log().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    worst = (2 * torch.tanh(free)).detach()
    assert max(spread(plain(s, 8)[1].sum(-2).log()) for s in worst) > 0.03  # far from balanced by alternation alone
    assert (doubly_stochastic(worst).sum(-2) - 1).abs().max() <= 1e-14
    assert (doubly_stochastic(worst.float()).sum(-2) - 1).abs().max() <= 40 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1.0, 1e-25])
def test_potentials_solve_their_equations_for_hard_matrices(fixed_steps, dtype, size):
    tolerance = 200 * torch.finfo(dtype).eps
    for logits in hard_logits(dtype):
        p = doubly_stochastic(logits)
        rows, columns = (size * noise(*p.shape[:2], seed=s).to(dtype) for s in (1, 2))
        columns = columns + (rows - columns).mean(-1, keepdim=True)
        rows[0] = columns[0] = 0
        u, v = System(p).potentials(rows, columns)
        assert (u + (p @ v.unsqueeze(-1)).squeeze(-1) - rows).abs().max() <= tolerance * size
        assert (v + (p.mT @ u.unsqueeze(-1)).squeeze(-1) - columns).abs().max() <= tolerance * size


def test_conjugate_gradients_converge_as_fast_as_proven():
    """By tanh(t / 2)^2 per step, as the eigenvalues of I - P^T P, 0 left out, are at least 1 / cosh(t)^2."""
    for t in (0.5, 1.0, 2.0):
        for logits in hard_logits(torch.float64):
            p = doubly_stochastic(t / 2 * logits)
            assert torch.linalg.svdvals(p)[..., 1].max() <= math.tanh(t) + 1e-12
    assert pytest.approx((math.cosh(2) - 1) / (math.cosh(2) + 1)) == balance.rate(2.0)


def test_no_value_of_the_device_is_read():
    for n in (16, 300):
        logits = torch.empty(3, n, n, device="meta", requires_grad=True)
        p = doubly_stochastic(logits)
        (gradient,) = torch.autograd.grad(p.sum(), logits)
        assert gradient.shape == logits.shape


# Derivatives.


@LOGITS
@SHARPNESS
def test_gradient_equals_that_of_unrolled_alternations(name, t):
    logits = (t * PATTERNS[name]).requires_grad_(True)
    direction = noise(*logits.shape, seed=5)
    by_system, by_unrolling = (
        torch.autograd.grad((p * direction).sum(), logits)[0]
        for p in (doubly_stochastic(logits), plain(logits, ENOUGH[t])[1])
    )
    assert torch.allclose(by_system, by_unrolling, rtol=0, atol=1e-12)


@pytest.mark.parametrize("t", [0.5, 2.0])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_first_and_second_derivatives_forward_and_backward(t, batch):
    logits = (t * torch.tanh(noise(*batch, 3, 3))).requires_grad_(True)
    assert torch.autograd.gradcheck(doubly_stochastic, logits, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(doubly_stochastic, logits, check_fwd_over_rev=True)


def test_all_modes_of_differentiation_give_the_same_jacobian():
    logits = torch.tanh(noise(2, 3, 3))
    expected = torch.stack([torch.autograd.functional.jacobian(lambda s: plain(s, 200)[1], s) for s in logits])
    for jacobian in (torch.func.jacrev, torch.func.jacfwd):
        one_by_one = torch.stack([jacobian(doubly_stochastic)(s) for s in logits])
        assert torch.allclose(one_by_one, expected, rtol=0, atol=1e-12)
        assert torch.allclose(torch.func.vmap(jacobian(doubly_stochastic))(logits), expected, rtol=0, atol=1e-12)
    last = torch.func.vmap(doubly_stochastic, in_dims=2, out_dims=2)(logits.movedim(0, 2))
    assert torch.allclose(last.movedim(2, 0), doubly_stochastic(logits), rtol=0, atol=1e-14)


@pytest.mark.parametrize("t", [0.5, 1.5])
def test_all_modes_of_differentiation_give_the_same_second_derivative(t):
    logits, direction = t * torch.tanh(noise(3, 3)), noise(3, 3, seed=3)

    def along(scaled: Tensor) -> Tensor:
        return (scaled.square() * direction).sum()

    expected = torch.autograd.functional.hessian(lambda s: along(plain(s, 200)[1]), logits)
    backward, forward = torch.func.jacrev, torch.func.jacfwd
    # Not forward over forward: torch drops the second tangent in every Function of one's own.
    for a, b in ((backward, backward), (backward, forward), (forward, backward)):
        hessian = a(b(lambda s: along(doubly_stochastic(s))))(logits)
        assert torch.allclose(hessian, expected, rtol=0, atol=1e-11), (a, b)


def test_third_derivative_equals_that_of_unrolled_alternations():
    logits, direction = torch.tanh(noise(2, 2)), noise(2, 2, seed=3)

    def third(scale) -> Tensor:
        s = logits.clone().requires_grad_(True)
        value = (scale(s) * direction).sum()
        for _ in range(3):
            (gradient,) = torch.autograd.grad(value, s, create_graph=True)
            value = (gradient * direction).sum()
        return value

    expected = third(lambda s: plain(s, 100)[1]).item()
    assert third(doubly_stochastic).item() == pytest.approx(expected, rel=1e-9)


def test_the_derivative_is_symmetric_and_leaves_the_sums():
    jacobian = torch.func.jacrev(doubly_stochastic)(torch.tanh(noise(4, 4))).view(16, 16)
    assert torch.allclose(jacobian, jacobian.T, rtol=0, atol=1e-13)
    # Directions that only scale rows or columns are lost, and nothing changes the sums.
    sums = jacobian.view(4, 4, 16)
    assert sums.sum(0).abs().max() < 1e-13
    assert sums.sum(1).abs().max() < 1e-13
    assert int((torch.linalg.eigvalsh(jacobian) > 1e-10).sum()) == 9


def test_gradients_in_float32():
    for t, pattern in itertools.product((0.5, 2.0), PATTERNS.values()):
        gradients = []
        for dtype in (torch.float64, torch.float32):
            logits = (t * pattern).to(dtype).requires_grad_(True)
            loss = (doubly_stochastic(logits) * noise(*logits.shape, seed=2).to(dtype)).sum()
            gradients.append(torch.autograd.grad(loss, logits)[0].double())
        assert torch.allclose(*gradients, rtol=0, atol=2e-5)
