"""Closed-form constants against independent numerical maximisation."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from acf.lipschitz import clipped_attention_constant, dot_attention_constant, l2_attention_constant
from tests.lipschitz.loops import clipped_constant

COUNTS = [2, 3, 4, 5, 7, 16, 49, 64, 196, 256, 784, 1024, 4096]


def second_moment(n: int) -> float:
    """Largest of sum_j p_j r_j^2 over p_j ~ exp(-r_j^2), one token at distance 0 and n - 1 at equal distances."""
    r2 = np.linspace(0, 5 + 2 * math.log(n), 400_001)
    weight = (n - 1) * np.exp(-r2)
    return float((weight * r2 / (1 + weight)).max())


def by_brute_force(n: int) -> float:
    x = np.geomspace(1e-7, n - 1, 400_001)[:-1]
    moment = x / (1 + x) * np.log((n - 1) / x)
    mu, nu = (moment / np.sqrt(1 + x)).max(), (moment / (1 + x)).max()
    t = np.linspace(0, 20, 400_001)
    kappa = (t * math.sqrt(n) * mu + (n - 1) * nu * np.exp(-1 - t)).min()
    return n**0.25 + 2 * second_moment(n) + 2 * math.sqrt(kappa)


@pytest.mark.parametrize("n", COUNTS)
def test_l2_constant_is_the_one_of_the_theorem(n):
    constant = l2_attention_constant(n)
    assert constant == pytest.approx(by_brute_force(n), rel=1e-7)
    assert constant >= by_brute_force(n) * (1 - 1e-9)


@pytest.mark.parametrize(
    ("n", "value"), [(16, 8.85), (49, 14.81), (196, 25.59), (256, 28.24), (784, 42.02), (1024, 46.06)]
)
def test_l2_constant_values(n, value):
    assert l2_attention_constant(n) == pytest.approx(value, abs=0.006)


def test_l2_constant_is_above_the_largest_gains_known():
    for n, gain in {2: 1.602, 3: 1.945, 4: 2.092, 8: 2.598, 16: 3.281, 32: 4.077, 64: 4.960}.items():
        assert l2_attention_constant(n) > gain


@pytest.mark.parametrize("constant", [l2_attention_constant, dot_attention_constant])
def test_one_token_passes_through_and_none_is_refused(constant):
    assert constant(1) == 1
    with pytest.raises(ValueError, match="at least one token"):
        constant(0)


def test_l2_constant_grows_with_the_number_of_tokens():
    values = [l2_attention_constant(n) for n in range(1, 300)]
    assert all(b > a for a, b in itertools.pairwise(values))


@pytest.mark.parametrize(
    ("n", "value"), [(2, 3.170), (3, 3.072), (4, 3.010), (49, 2.436), (196, 2.209), (1024, 2.088), (100_000, 2.009)]
)
def test_dot_constant_values(n, value):
    assert dot_attention_constant(n) == pytest.approx(value, abs=6e-4)


def test_dot_constant_falls_to_two():
    values = [dot_attention_constant(n) for n in [*range(2, 2000), 10**4, 10**6, 10**9]]
    assert all(b < a for a, b in itertools.pairwise(values))
    assert 2 < values[-1] < 2.0002


def test_dot_constant_is_below_those_of_simpler_arguments():
    """Without the sharper steps of Theorem 2: cosh 1 for the norm of P, and the queries' part of the scale added."""
    for n in COUNTS:
        eta = math.e / math.sqrt(n - 1 + math.e**2)
        cases = [(1, 1 + eta, math.cosh(1) + 1), (2, eta, math.cosh(1) + 1), (2, 1 + eta, math.cosh(1))]
        assert dot_attention_constant(n) < max(math.hypot(*case) for case in cases)


def weights_under_attack(n: int, gain, steps: int = 150) -> float:
    """Gradient ascent on a gain of P over logits |s_ij| <= rho_i, sum rho_i^2 = 1, as the normalisation leaves them."""
    torch.manual_seed(n)
    raw = torch.randn(20, n, n, dtype=torch.float64, requires_grad=True)
    share = torch.randn(20, n, 1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([raw, share], lr=0.05)
    best = 0.0
    for _ in range(steps):
        rho = share / share.norm(dim=1, keepdim=True)
        found = gain(torch.softmax(rho * torch.tanh(raw), -1))
        best = max(best, found.max().item())
        optimiser.zero_grad()
        (-found.sum()).backward()
        optimiser.step()
    return best


@pytest.mark.parametrize("n", [2, 3, 8])
def test_every_part_of_the_dot_constant_bounds_what_gradient_ascent_finds(n):
    eta2 = math.e**2 / (n - 1 + math.e**2)
    norm2 = 1 + math.sinh(1) ** 2 / n
    column2 = eta2 * (1 + 2 / math.sqrt(n) + (math.e**2 - 3) / n)
    frobenius = weights_under_attack(n, lambda p: p.square().sum((-1, -2)))
    assert 1 + 0.4 * (norm2 - 1) <= frobenius <= norm2
    assert 1 < weights_under_attack(n, lambda p: torch.linalg.matrix_norm(p, 2)) ** 2 <= norm2
    assert 0.95 * eta2 <= weights_under_attack(n, lambda p: p.amax((-1, -2))) <= eta2
    assert 0.3 * column2 <= weights_under_attack(n, lambda p: p.square().sum(-2).amax(-1)) <= column2
    values = min((1 + math.sqrt(norm2)) ** 2, norm2 + (1 + math.sqrt(column2)) ** 2)
    expected = math.sqrt(1 + (1 + math.sqrt(eta2)) ** 2 + values)
    assert dot_attention_constant(n) == pytest.approx(expected, rel=1e-8)
    assert dot_attention_constant(n) >= expected


# Theorem 3.


def clip(t: float, ratio: float, dtype: torch.dtype = torch.float64) -> float:
    return clipped_attention_constant(*torch.tensor([t, ratio], dtype=dtype)).item()


def key_factor_square(t: float) -> float:
    """b(t)^2 as the constant holds it."""
    return clip(t, 1.0) ** 2 - math.cosh(t) ** 2 - 1


def gain_of_keys(mass: np.ndarray, t: float) -> np.ndarray:
    """N sum_j p_j^2 (z_j - zbar)^2 for masses (..., 4) of tokens with weight 1 or e^(2 t) and z = -1 or 1."""
    mass = np.abs(mass) / np.abs(mass).sum(-1, keepdims=True)
    weight, z = np.array([1, 1, math.exp(2 * t), math.exp(2 * t)]), np.array([-1.0, 1.0, -1.0, 1.0])
    total = (mass * weight).sum(-1)
    mean = (mass * weight * z).sum(-1) / total
    return (mass * weight**2 * (z - mean[..., None]) ** 2).sum(-1) / total**2


@pytest.mark.parametrize("t", [0.05, 0.1, 0.3, 0.5, 1.0, 1.5, 2.0])
def test_key_factor_against_search_over_all_masses(t):
    grid = np.random.default_rng(0).dirichlet(np.full(4, 0.5), 20_000)
    options = {"xatol": 1e-10, "fatol": 1e-13, "maxiter": 8000, "maxfev": 8000}
    found = max(
        -minimize(lambda m: -gain_of_keys(m, t), start, method="Nelder-Mead", options=options).fun
        for start in grid[gain_of_keys(grid, t).argsort()[-5:]]
    )
    assert key_factor_square(t) == pytest.approx(found, abs=1e-6)
    assert key_factor_square(t) >= found - 1e-12


def test_key_factor_bounds_weights_and_values_between_the_extremes():
    """Weights between 1 and e^(2 t) and values between -1 and 1 gain no more."""
    draw = np.random.default_rng(1)
    for t in (0.3, 1.0, 2.0):
        for n in (2, 3, 6):
            weight = np.exp(2 * t * draw.beta(0.3, 0.3, (20_000, n)))
            z = 2 * draw.beta(0.3, 0.3, (20_000, n)) - 1
            p = weight / weight.sum(-1, keepdims=True)
            spread = z - (p * z).sum(-1, keepdims=True)
            found = (n * (p * spread) ** 2).sum(-1).max()
            assert 0.5 * min(key_factor_square(t), n / 4) < found <= key_factor_square(t)


@pytest.mark.parametrize(("t", "value"), [(0.5, 1.227), (1.0, 1.850), (2.0, 4.829)])
def test_key_factor_values(t, value):
    assert math.sqrt(key_factor_square(t)) == pytest.approx(value, abs=6e-4)


@pytest.mark.parametrize("t", [1e-3, 0.1, 0.5, 1.0, 1.9, 2.0, 4.0])
@pytest.mark.parametrize("ratio", [1e-6, 0.3, 1.0, 20.0])
def test_clipped_constant_against_plain_search(t, ratio):
    assert clip(t, ratio) == pytest.approx(clipped_constant(t, ratio), rel=1e-9)
    assert clip(t, ratio, torch.float32) == pytest.approx(clipped_constant(t, ratio), rel=1e-4)


@pytest.mark.parametrize("t", [1e-12, 1e-8, 1e-6, 1e-4, 1e-3])
def test_clipped_constant_is_precise_for_small_t(t):
    # b(t)^2 = 1 + 2 t^2 + O(t^4).
    assert key_factor_square(t) == pytest.approx(1 + 2 * t**2, abs=1e-14 + 3 * t**4)
    assert clip(t, t) == pytest.approx(1 + 1.5 * t**2, abs=1e-14 + 3 * t**4)


def test_clipped_constant_grows_with_sharpness_and_with_values():
    ts = torch.linspace(1e-3, 2, 400, dtype=torch.float64)
    for ratio in (0.0, 0.5, 3.0):
        assert (clipped_attention_constant(ts, torch.full_like(ts, ratio)).diff() > 0).all()
    ratios = torch.linspace(0, 5, 100, dtype=torch.float64)
    assert (clipped_attention_constant(torch.ones_like(ratios), ratios).diff() > 0).all()
    assert clip(1.0, 0.0) == pytest.approx(math.cosh(1), rel=1e-12)


def test_clipped_constant_is_differentiable_and_elementwise():
    t = torch.tensor([[1e-4], [0.2], [1.0], [1.99]], dtype=torch.float64, requires_grad=True)
    ratio = torch.tensor([0.1, 2.0], dtype=torch.float64, requires_grad=True)
    made = clipped_attention_constant(t, ratio)
    assert made.shape == (4, 2)
    assert made[2, 1].item() == pytest.approx(clip(1.0, 2.0), rel=1e-15)

    def f(a: Tensor, b: Tensor) -> Tensor:
        return clipped_attention_constant(a, b)

    assert torch.autograd.gradcheck(f, (t, ratio), eps=1e-7)
    assert torch.autograd.gradgradcheck(f, (t, ratio), eps=1e-7)
