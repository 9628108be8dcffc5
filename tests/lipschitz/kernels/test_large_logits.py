"""Doubly stochastic scaling of logits beyond 2, as sharper attention and biases of position make them."""

import math

import pytest
import torch
from torch import Tensor

from acf.lipschitz.kernels import balance
from acf.lipschitz.kernels.balance import System, doubly_stochastic, newton_steps
from tests.building_blocks.noise import noise
from tests.lipschitz.kernels.test_balance import clusters, plain, spread, triangle

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
LIMITS = pytest.mark.parametrize("limit", [3.0, 5.0, 6.0])


def hard_logits(limit: float, dtype: torch.dtype, count: int = 10) -> list[Tensor]:
    """Logits of this size: thresholds, clusters, bands and shifts along a line, tokens in two clusters."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator, dtype=torch.float64)

    found = [triangle(n)[None] for n in (5, 16, 33)]
    found += [clusters(n, first)[None] for n, first in ((3, 2), (8, 5), (33, 16), (33, 32))]
    for n in (8, 33):
        apart = torch.arange(n)[:, None] - torch.arange(n)
        found += [(2.0 * (apart.abs() <= width) - 1)[None] for width in (0, 1, 2)]
        found += [(2.0 * (apart == shift) - 1)[None] for shift in (1, -2)]
        a, b, share = random(n, 1), random(1, n), random(1, 1)
        found += [2.0 * (random(n, n) > share) - 1, 2.0 * (a**3 + b**3 > 0.5) - 1, 2.0 * (a + b > 2 * share) - 1]
        q, k = (torch.randn(count, n, 3, generator=generator, dtype=torch.float64) for _ in "qk")
        q, k = (x + 2 * torch.randn(count, 1, 3, generator=generator, dtype=torch.float64) for x in (q, k))
        found.append(torch.nn.functional.normalize(q, dim=-1) @ torch.nn.functional.normalize(k, dim=-1).mT)
    return [limit * logits.to(dtype) for logits in found]


@pytest.fixture
def fixed_steps(monkeypatch):
    """As on devices where the host does not wait for a test of convergence."""
    monkeypatch.setattr(balance, "_known_without_waiting", lambda x: False)
    monkeypatch.setattr(balance, "_largest_inverted", lambda device, limit: 1000)


@DTYPES
@LIMITS
def test_a_fixed_number_of_steps_balances_hard_logits(fixed_steps, limit, dtype):
    eps = torch.finfo(dtype).eps
    for logits in hard_logits(limit, dtype):
        p = doubly_stochastic(logits, limit)
        assert (p > 0).all()
        assert (p.sum(-1) - 1).abs().max() <= 8 * eps
        assert (p.sum(-2) - 1).abs().max() <= 40 * eps


def left_by_fewer_steps(logits: Tensor, steps: int) -> Tensor:
    """Range of log column sums after eight alternations and `steps` of Newton's method, each with an alternation."""
    kernel, n = logits.exp(), logits.shape[-1]

    def columns_of(right: Tensor) -> Tensor:
        return right * ((1 / (right @ kernel.mT)) @ kernel)

    right = torch.ones_like(logits[:, :1])
    for _ in range(8):
        right = right / columns_of(right)
    for _ in range(steps):
        c = columns_of(right)
        p = kernel * right / (right @ kernel.mT).mT
        change = c * c.log()
        change = c * change.mean(-1, keepdim=True) - change
        matrix = torch.diag_embed(c[:, 0]) - p.mT @ p + 1 / n
        right = right * torch.linalg.solve(matrix, (change - change.mean(-1, keepdim=True)).mT).mT.exp()
        right = right / columns_of(right)
    logs = columns_of(right)[:, 0].log()
    return logs.amax(-1) - logs.amin(-1)


@pytest.mark.parametrize("limit", [5.0, 6.0])
def test_a_fixed_number_of_steps_balances_the_worst_logits_found_by_ascent(fixed_steps, limit):
    free = torch.cat([noise(4, 9, 9, seed=4), 1.5 * triangle(9)[None] + 0.1 * noise(2, 9, 9)]).requires_grad_(True)
    optimiser = torch.optim.Adam([free], lr=0.15)
    for _ in range(50):
        loss = -(left_by_fewer_steps(limit * torch.tanh(free), 2) + 1e-14).log().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    worst = (limit * torch.tanh(free)).detach()
    assert left_by_fewer_steps(worst, 3).max() > 0.01  # few steps are far too few
    for dtype in (torch.float32, torch.float64):
        p = doubly_stochastic(worst.to(dtype), limit)
        assert (p.sum(-2) - 1).abs().max() <= 40 * torch.finfo(dtype).eps


@DTYPES
@LIMITS
def test_steps_that_end_by_a_test_and_conjugate_gradients_find_the_same(monkeypatch, limit, dtype):
    monkeypatch.setattr(balance, "_largest_inverted", lambda device, limit: 0)
    eps = torch.finfo(dtype).eps
    for logits in hard_logits(limit, dtype, count=2):
        p = doubly_stochastic(logits, limit)
        assert (p.sum(-2) - 1).abs().max() <= 60 * eps
        rest = p.double().log() - logits.double()
        rest = rest - rest.mean(-2, keepdim=True)
        assert (rest - rest.mean(-1, keepdim=True)).abs().max() <= 200 * eps


def test_equals_the_limit_of_plain_alternation():
    for logits in (3 * clusters(5, 3), 3 * torch.tanh(noise(5, 5))):
        assert torch.allclose(doubly_stochastic(logits, 3.0), plain(logits, 4000)[1], rtol=0, atol=1e-13)


def test_alternation_contracts_and_column_sums_tell_by_the_larger_bound():
    t = 4.0
    for logits in (t * clusters(4, 2), t * triangle(5)):
        limit = doubly_stochastic(logits, t)
        assert torch.linalg.svdvals(limit)[1] <= math.tanh(t) + 1e-12
        scaling = (limit.log() - logits)[0]  # of the columns, up to a constant
        for times in (1, 5, 30):
            right, p = plain(logits, times)
            h = spread(right - scaling)
            assert h <= min(2 * t * math.tanh(t) ** (2 * times), math.cosh(t) ** 2 * spread(p.sum(-2).log())) + 1e-10


@LIMITS
def test_gradients_in_float32(limit):
    """Errors of the slowest mode cancel in u_i + v_j, so that far less than eps cosh(limit)^2 of them is left."""
    for logits in hard_logits(limit, torch.float64, count=4):
        direction = noise(*logits.shape, seed=2)
        gradients = []
        for dtype in (torch.float64, torch.float32):
            s = logits.to(dtype).requires_grad_(True)
            p = doubly_stochastic(s, limit)
            gradients.append(torch.autograd.grad((p * direction.to(dtype)).sum(), s)[0].double())
        size = (p.detach().double() * direction).norm(dim=(-2, -1))
        assert ((gradients[0] - gradients[1]).norm(dim=(-2, -1)) <= 1e-3 * size).all()


@pytest.mark.parametrize("limit", [3.0, 5.0])
def test_derivatives_of_all_orders_know_the_bound(limit):
    logits = (limit * torch.tanh(2 * noise(3, 3))).requires_grad_(True)

    def scaled(s: Tensor) -> Tensor:
        return doubly_stochastic(s, limit)

    assert torch.autograd.gradcheck(scaled, logits, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(scaled, logits)
    several = limit * torch.tanh(noise(4, 3, 3))
    by_sample = torch.func.vmap(torch.func.jacrev(scaled))(several)
    for s, jacobian in zip(several, by_sample, strict=True):
        assert torch.allclose(torch.func.jacfwd(scaled)(s), jacobian, rtol=0, atol=1e-11)


def test_potentials_take_as_many_conjugate_gradients_as_the_bound_needs(monkeypatch):
    """On a device without a test of convergence, for the slowest matrices there are."""
    monkeypatch.setattr(balance, "_known_without_waiting", lambda x: False)
    monkeypatch.setattr(balance, "_largest_inverted", lambda device, limit: 0)
    p = doubly_stochastic(3 * clusters(12, 6), 3.0)[None]
    rows, columns = noise(1, 12), noise(1, 12, seed=1)
    columns = columns + (rows - columns).mean(-1, keepdim=True)
    u, v = System(p, 3.0).potentials(rows, columns)
    assert ((p @ v.unsqueeze(-1)).squeeze(-1) + u - rows).abs().max() <= 1e-12
    assert ((p.mT @ u.unsqueeze(-1)).squeeze(-1) + v - columns).abs().max() <= 1e-12


def test_steps_grow_with_the_bound_and_read_no_value_of_the_device():
    assert [newton_steps(t, torch.float64) for t in (0.5, 2.0, 3.0, 5.0, 6.0)] == [5, 5, 7, 10, 11]
    for n in (16, 300):
        logits = torch.empty(3, n, n, device="meta", requires_grad=True)
        (gradient,) = torch.autograd.grad(doubly_stochastic(logits, 5.0).sum(), logits)
        assert gradient.shape == logits.shape
