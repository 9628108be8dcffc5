"""Slopes of the activations on fine grids against their bounds."""

import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from acf.lipschitz.activations import ELU, PAIR_SLOPE, SWISH_SLOPE, CLipSwish, LipSwish
from acf.registry import ACTIVATIONS, resolve

BETAS = pytest.mark.parametrize("beta", [-8.0, -1.0, 0.5, 3.0, 30.0])


def swish_slope(x: float) -> float:
    s = 1 / (1 + math.exp(-x))
    return s + x * s * (1 - s)


def test_largest_slope_of_swish():
    top = minimize_scalar(lambda x: -swish_slope(x), bounds=(2, 3), method="bounded", options={"xatol": 1e-12})
    assert 0 <= SWISH_SLOPE + top.fun < 2e-10
    slopes = [swish_slope(x / 1000) for x in range(-30_000, 30_000)]
    assert max(slopes) <= SWISH_SLOPE
    assert min(slopes) > -0.1


@BETAS
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


def clipswish_slopes(beta: float) -> tuple[CLipSwish, Tensor, Tensor]:
    """(the layer with this parameter, points, norms of its pairs of slopes there)."""
    layer = CLipSwish().double()
    with torch.no_grad():
        layer.beta.fill_(beta)
    b = torch.nn.functional.softplus(layer.beta.detach())
    x = (torch.linspace(-40, 40, 200_001, dtype=torch.float64) / b).view(-1, 1).requires_grad_(True)
    y = layer(x)
    slopes = torch.cat([torch.autograd.grad(y[:, i].sum(), x, retain_graph=True)[0] for i in (0, 1)], 1)
    return layer, x, slopes.norm(dim=1)


@BETAS
def test_norms_of_clipswish(beta):
    layer, _, norms = clipswish_slopes(beta)
    assert 0.999 < norms.max().item() <= layer.lipschitz_bound() < 1
    assert norms.max().item() == pytest.approx(layer.lipschitz_bound(), rel=1e-6)
    assert norms.min().item() > 0.5


def test_norm_of_clipswish_is_largest_where_the_slope_is():
    top = minimize_scalar(
        lambda x: -math.hypot(swish_slope(x), swish_slope(-x)),
        bounds=(2, 3),
        method="bounded",
        options={"xatol": 1e-12},
    )
    assert 0 <= PAIR_SLOPE + top.fun < 3e-10
    _, x, norms = clipswish_slopes(0.5)
    b = math.log1p(math.exp(0.5))
    assert abs(b * x[norms.argmax()].item()) == pytest.approx(top.x, abs=1e-3)


@BETAS
def test_clipswish_is_lipswish_of_both_signs(beta):
    layer, x, _ = clipswish_slopes(beta)
    single = LipSwish().double()
    single.load_state_dict(layer.state_dict())
    expected = torch.cat([single(x), single(-x)], 1) / 1.004
    assert torch.allclose(layer(x), expected, rtol=1e-9, atol=1e-15 * x.abs().max().item())


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 3, 4, 5)])
def test_channels_widen_as_stated(name, shape):
    layer = resolve(ACTIVATIONS, name, "activation")().double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    assert y.shape == (2, 3 * layer.widening, *shape[2:])
    y.square().sum().backward()
    assert all(t.grad.isfinite().all() and t.grad.abs().max() > 0 for t in (x, *layer.parameters()))
    assert torch.autograd.gradcheck(layer, x)
    assert layer.lipschitz_bound(4) == layer.lipschitz_bound()


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_for_all_arguments(name, dtype):
    layer = resolve(ACTIVATIONS, name, "activation")().to(dtype)
    x = torch.tensor([[0.0, 1e-30, -1e-30, 1e4, -1e4, 1e30, -1e30]], dtype=dtype, requires_grad=True)
    layer(x).sum().backward()
    assert layer(x).isfinite().all()
    assert all(t.grad.isfinite().all() for t in (x, *layer.parameters()))
