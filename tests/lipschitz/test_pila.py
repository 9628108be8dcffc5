"""CPila against its published definition, and its slopes against their bounds."""

import math

import pytest
import torch
from torch import Tensor

from acf.lipschitz import CPila
from acf.lipschitz.pila import PILA_PAIR_SLOPE


def published(x: Tensor) -> Tensor:
    """The layer of the published code, with k = 5 and its coefficients of z^3, z^2 and z."""
    z = torch.cat([x - 0.2, -x - 0.2], 1)
    return torch.where(z > 0, z, (12.5 * z**3 - 5 * z**2 + z) * torch.exp(5 * z.clamp_max(0))) / 1.06


def with_scale(b: float) -> CPila:
    layer = CPila().double()
    with torch.no_grad():
        layer.beta.fill_(math.log(math.expm1(b)) if b < 100 else b)
    return layer


def pair_of_slopes(layer: CPila, x: Tensor) -> Tensor:
    """(n, 2): the derivatives of both outputs at x (n, 1), which has a graph."""
    y = layer(x)
    return torch.cat([torch.autograd.grad(y[:, i].sum(), x, create_graph=True)[0] for i in (0, 1)], 1)


def test_it_starts_as_published() -> None:
    x = torch.linspace(-30, 30, 60_001, dtype=torch.float64).view(-1, 1)
    start = torch.nn.functional.softplus(CPila().double().beta.detach())
    assert float(start) == pytest.approx(5, rel=1e-7)
    torch.testing.assert_close(with_scale(5.0)(x), published(x), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("b", [0.01, 1.0, 5.0, 300.0])
def test_the_norm_of_the_slopes_stays_near_one(b: float) -> None:
    layer = with_scale(b)
    x = (torch.linspace(-40, 40, 200_001, dtype=torch.float64) / b).view(-1, 1).requires_grad_(True)
    norms = pair_of_slopes(layer, x).detach().norm(dim=1)
    assert float(norms.max()) == pytest.approx(layer.lipschitz_bound(), rel=1e-8)
    assert 1 / 1.06 - 1e-12 < float(norms.min()) < float(norms.max()) <= layer.lipschitz_bound() < 1
    assert abs(b * float(x.detach()[norms.argmax()])) == pytest.approx(3, abs=1e-3)


def slope(s: float) -> float:
    return (1 + s + s**2 / 2 - s**3 / 2) * math.exp(-s)


def test_the_proof_between_minus_one_and_one() -> None:
    """Section 9 of docs/mathematics.md: on each of 32 intervals of u the slope is largest, and least, at known ends."""
    assert 0 <= PILA_PAIR_SLOPE - math.sqrt(1 + 361 * math.exp(-8)) < 1e-9
    ends = [(i / 32, (i + 1) / 32) for i in range(32)]
    upper = max(slope(1 - right) ** 2 + slope(1 + left) ** 2 for left, right in ends)
    lower = min(slope(1 - left) ** 2 + slope(1 + right) ** 2 for left, right in ends)
    assert upper == pytest.approx(1.1089, abs=1e-4)
    assert 1 < lower < upper < PILA_PAIR_SLOPE**2


def test_second_derivatives_have_no_jump() -> None:
    x = torch.linspace(-0.6, 0.6, 12_001, dtype=torch.float64).view(-1, 1).requires_grad_(True)
    slopes = pair_of_slopes(CPila().double(), x)
    bends = torch.stack([torch.autograd.grad(slopes[:, i].sum(), x, retain_graph=True)[0] for i in (0, 1)])
    assert float(bends.abs().max()) > 1
    assert float(bends.diff(dim=1).abs().max()) < 0.01


def test_the_derivative_at_the_joint_is_that_of_the_smooth_function() -> None:
    layer = with_scale(1.0)
    u = torch.tensor([[-1.0], [1.0]], dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(layer.core(u).sum(), u)
    nearby = layer.core(u + 1e-6).sum(1) - layer.core(u - 1e-6).sum(1)
    torch.testing.assert_close(slopes.flatten(), nearby / 2e-6, rtol=0, atol=1e-5)
