"""Closed-form constants against independent numerical maximisation."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from acf.lipschitz import dot_attention_constant, l2_attention_constant
from acf.lipschitz.activations import ELU, SWISH_SLOPE, LipSwish

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


@pytest.mark.parametrize(("n", "value"), [(49, 2.98), (196, 2.89), (1024, 2.85), (3, 3.35473), (100_000, 2.83069)])
def test_dot_constant_values(n, value):
    assert dot_attention_constant(n) == pytest.approx(value, abs=0.006)


def test_dot_constant_is_largest_for_three_tokens():
    values = {n: dot_attention_constant(n) for n in [*range(2, 300), 10**4, 10**6]}
    assert max(values, key=lambda n: values[n]) == 3
    assert min(values.values()) > math.sqrt(8)


def largest_norm_of_attention(n: int, steps: int = 400) -> float:
    """Gradient ascent on |P|_2 over logits |s_ij| <= rho_i, sum rho_i^2 = 1, as the normalisation leaves them."""
    torch.manual_seed(n)
    raw = torch.randn(20, n, n, dtype=torch.float64, requires_grad=True)
    share = torch.randn(20, n, 1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([raw, share], lr=0.05)
    for _ in range(steps):
        rho = share / share.norm(dim=1, keepdim=True)
        norm = torch.linalg.matrix_norm(torch.softmax(rho * torch.tanh(raw), -1), 2)
        optimiser.zero_grad()
        (-norm.sum()).backward()
        optimiser.step()
    return float(norm.detach().max())


@pytest.mark.parametrize("n", [2, 3, 8])
def test_norm_of_the_attention_matrix_in_the_dot_constant(n):
    e2 = math.exp(2)
    norm_p = min(math.cosh(1), math.sqrt(1 + 2 / math.sqrt(n) + (e2 - 3) / n), math.sqrt(n))
    assert 1 < largest_norm_of_attention(n, 150) <= norm_p
    # ... and it is the constant's third case: sqrt(a_Q^2 + a_K^2 + a_V^2) with w smallest.
    eta = math.e / math.sqrt(n - 1 + e2)
    cases = [(1, 1 + eta, norm_p + 1), (2, eta, norm_p + 1), (2, 1 + eta, norm_p)]
    assert dot_attention_constant(n) == pytest.approx(max(math.hypot(*case) for case in cases), rel=1e-8)


def swish_slope(x: float) -> float:
    s = 1 / (1 + math.exp(-x))
    return s + x * s * (1 - s)


def test_largest_slope_of_swish():
    top = minimize_scalar(lambda x: -swish_slope(x), bounds=(2, 3), method="bounded", options={"xatol": 1e-12})
    assert 0 <= SWISH_SLOPE + top.fun < 2e-10
    slopes = [swish_slope(x / 1000) for x in range(-30_000, 30_000)]
    assert max(slopes) <= SWISH_SLOPE
    assert min(slopes) > -0.1


@pytest.mark.parametrize("beta", [-8.0, -1.0, 0.5, 3.0, 30.0])
def test_slopes_of_lipswish(beta):
    layer = LipSwish().double()
    with torch.no_grad():
        layer.beta.fill_(beta)
    b = float(torch.nn.functional.softplus(layer.beta.detach()))
    x = (torch.linspace(-40, 40, 200_001, dtype=torch.float64) / b).requires_grad_(True)
    (slopes,) = torch.autograd.grad(layer(x).sum(), x)
    assert 0.9998 < float(slopes.max()) <= layer.lipschitz_bound() < 1
    assert float(slopes.min()) > -layer.lipschitz_bound()


def test_slopes_of_elu():
    x = torch.linspace(-20, 20, 100_001, dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(ELU()(x).sum(), x)
    assert float(slopes.min()) > 0
    assert float(slopes.max()) == ELU().lipschitz_bound() == 1
