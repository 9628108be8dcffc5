"""Spectral normalisation: the estimate, its gradient, the scaling and the bound."""

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from acf.lipschitz import NormalisedConv2d, NormalisedLinear, OrthogonalLinear
from acf.lipschitz.bounds.norms import ROUNDING
from acf.lipschitz.orthogonal_linear import nearest_isometry
from tests.building_blocks.noise import noise

LAYERS = {
    "conv 3x3": lambda: NormalisedConv2d(2, 3, 3, (4, 5)),
    "conv 5x5": lambda: NormalisedConv2d(3, 2, 5, (3, 3)),
    "conv 3x3, large map": lambda: NormalisedConv2d(1, 2, 3, (9, 9)),
    "conv 1x1": lambda: NormalisedConv2d(4, 2, 1, (2, 3)),
    "linear": lambda: NormalisedLinear(7, 4),
    "linear, no bias": lambda: NormalisedLinear(3, 9, bias=False, coefficient=0.5),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def make(name: str, scale: float = 6.0):
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    with torch.no_grad():
        layer.weight.mul_(scale)
    return layer


def inputs(layer, batch: int) -> Tensor:
    return torch.randn(
        batch, *layer.right.shape[1:], dtype=layer.weight.dtype, generator=torch.Generator().manual_seed(1)
    )


def dense(layer) -> Tensor:
    """Matrix of the map in use, bias left out."""
    shape = layer.right.shape[1:]
    units = torch.eye(shape.numel(), dtype=torch.float64).view(-1, *shape)
    with torch.no_grad():
        return (layer(units) - layer(torch.zeros_like(units[:1]))).flatten(1).T


def stored_norm(layer) -> float:
    """Norm of the map with the stored weight, from its dense matrix."""
    shape = layer.right.shape[1:]
    units = torch.eye(shape.numel(), dtype=torch.float64).view(-1, *shape)
    with torch.no_grad():
        return float(torch.linalg.matrix_norm(layer.value(units, (layer.weight,)).flatten(1), 2))


@every_layer
def test_power_iteration_converges_to_the_norm_from_below(name):
    layer, truth = make(name), stored_norm(make(name))
    layer.right.normal_().div_(layer.right.norm())
    previous = 0.0
    for _ in range(20):
        layer.renormalise(2)
        now = float(layer.estimated_norm().detach())
        assert previous * (1 - 1e-12) <= now <= truth * (1 + 1e-12)
        previous = now
    layer.converge_norm(1e-12, 20_000)
    assert float(layer.estimated_norm().detach()) == pytest.approx(truth, rel=1e-6)


@every_layer
def test_estimate_is_never_above_the_norm(name):
    layer, truth = make(name), stored_norm(make(name))
    for seed in range(20):
        torch.manual_seed(seed)
        for vector in (layer.left, layer.right):
            vector.normal_().div_(vector.norm())
        assert abs(float(layer.estimated_norm().detach())) <= truth


@every_layer
def test_norm_in_use_is_the_coefficient_and_the_bound_holds(name):
    layer = make(name)
    layer.converge_norm(1e-12, 20_000)
    norm = float(torch.linalg.matrix_norm(dense(layer), 2))
    assert norm == pytest.approx(layer.coefficient, rel=1e-4)
    assert norm <= layer.lipschitz_bound() / ROUNDING * (1 + 1e-9)


@every_layer
def test_bound_holds_whatever_the_buffers(name):
    layer = make(name)
    for seed in range(10):
        torch.manual_seed(seed)
        layer.left.normal_()
        layer.right.normal_()
        layer.slack.uniform_(0.1, 2)
        assert float(torch.linalg.matrix_norm(dense(layer), 2)) <= layer.lipschitz_bound()


@every_layer
def test_small_weights_are_left_alone(name):
    layer = make(name, scale=0.01)
    layer.converge_norm()
    assert torch.equal(layer.effective_weight(), layer.weight)


@every_layer
def test_slack_lowers_the_norm(name):
    layer = make(name)
    layer.converge_norm(1e-12, 20_000)
    before = dense(layer)
    layer.slack.fill_(1.25)
    assert torch.allclose(dense(layer), before / 1.25, rtol=1e-12)


@every_layer
def test_gradient_of_the_norm_is_that_of_the_true_norm(name):
    layer = make(name)
    layer.converge_norm(1e-14, 50_000)
    (by_autograd,) = torch.autograd.grad(layer.estimated_norm(), layer.weight)
    direction = torch.randn(layer.weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    norms, h = [], 1e-5
    for sign in (1, -1):
        with torch.no_grad():
            layer.weight.add_(sign * h * direction)
        norms.append(stored_norm(layer))
        with torch.no_grad():
            layer.weight.sub_(sign * h * direction)
    assert float((by_autograd * direction).sum()) == pytest.approx((norms[0] - norms[1]) / (2 * h), rel=1e-4)


@every_layer
def test_gradient_through_the_normalised_map(name):
    layer = make(name)
    layer.converge_norm(1e-14, 50_000)
    x = inputs(layer, 3)

    def run(weight: Tensor) -> Tensor:
        return functional_call(layer, {"weight": weight}, (x,))

    assert torch.autograd.gradcheck(run, layer.weight.detach().requires_grad_(True))
    # Scaling the weight does not change a normalised map, so the gradient has no part along the weight.
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), layer.weight)
    assert abs(float((gradient * layer.weight).sum())) <= 1e-9 * float(gradient.norm() * layer.weight.norm())


@every_layer
def test_the_vjp_is_the_adjoint(name):
    layer = make(name)
    x, y = inputs(layer, 1), torch.randn(layer.left.shape, dtype=torch.float64)
    with torch.no_grad():
        value, vjp = layer.value_and_vjp(x, (layer.weight,), x.dtype)
        one, other = (value * y).sum(), (vjp(y) * x).sum()
    assert float(one) == pytest.approx(float(other), rel=1e-10)


@every_layer
def test_float32_agrees_with_float64(name):
    double, single = make(name), make(name).float()
    x = inputs(double, 2)
    assert single(x.float()).dtype == torch.float32
    assert torch.allclose(single(x.float()).double(), double(x), rtol=1e-5, atol=1e-5)
    assert single.lipschitz_bound() == pytest.approx(double.lipschitz_bound(), rel=1e-6)
    assert float(torch.linalg.matrix_norm(dense(single.double()), 2)) <= single.lipschitz_bound()


@every_layer
def test_a_weight_of_zeros_does_not_end_the_iteration(name):
    layer = make(name)
    values = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.zero_()
    layer.renormalise(3)
    assert layer.lipschitz_bound() == 0
    with torch.no_grad():
        layer.weight.copy_(values)
    layer.converge_norm(1e-12, 20_000)
    assert float(torch.linalg.matrix_norm(dense(layer), 2)) == pytest.approx(layer.coefficient, rel=1e-3)


@every_layer
def test_an_iteration_that_starts_in_the_null_space_finds_the_norm(name):
    layer, truth = make(name), stored_norm(make(name))
    for dead in (True, False):
        with torch.no_grad():
            layer.right.zero_()
            if not dead:  # a direction that the weight maps to zero
                layer.right[0, 0] = 1 / layer.right[0, 0].numel() ** 0.5
                layer.weight[:, 0] = 0
                truth = stored_norm(layer)
        layer.converge_norm(1e-12, 20_000)
        assert float(layer.estimated_norm().detach()) == pytest.approx(truth, rel=1e-4)


@every_layer
@pytest.mark.parametrize("rate", [1e-3, 1.0])
def test_a_weight_of_zeros_trains_away_from_zero(name, rate):
    """As output layers may be initialised; the bound is 0 at first, and at most the coefficient then."""
    layer = make(name)
    torch.nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        torch.nn.init.zeros_(layer.bias)
    layer.renormalise(2)
    x = inputs(layer, 3)
    assert not layer(x).any()
    assert layer.lipschitz_bound() == 0
    optimiser = torch.optim.SGD(layer.parameters(), lr=rate)
    losses = []
    for _ in range(20):
        loss = (layer(x) - torch.ones_like(layer(x))).square().mean()
        optimiser.zero_grad()
        loss.backward()
        assert all(p.grad.isfinite().all() for p in layer.parameters())
        optimiser.step()
        layer.renormalise(5)
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    layer.converge_norm(1e-12, 20_000)
    assert 0 < layer.lipschitz_bound() <= layer.coefficient * 1.01


@every_layer
def test_weights_that_are_not_finite_have_no_bound(name):
    layer = make(name)
    with torch.no_grad():
        layer.weight.view(-1)[0] = float("nan")
    assert not layer.lipschitz_bound() < 1


def test_an_orthogonal_layer_starts_with_equal_singular_values():
    matrix = OrthogonalLinear(4, 12, coefficient=1.0).double()
    expected = torch.full((4,), 1 / ROUNDING, dtype=torch.float64)  # as large as is proven with the allowance
    assert torch.allclose(torch.linalg.svdvals(dense(matrix)), expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(4, 12), (12, 4), (5, 5), (1, 3)])
@pytest.mark.parametrize("largest", [0.01, 1.0, 50.0])
def test_orthogonal_layer_returns_to_the_nearest_isometry(shape, largest):
    torch.manual_seed(0)
    layer = OrthogonalLinear(*shape).double()
    u, s, v = torch.linalg.svd(layer.weight.detach(), full_matrices=False)
    values = torch.linspace(largest, 0.1 * largest, len(s), dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(u @ values.diag() @ v)
    layer.renormalise(5)
    assert torch.allclose(layer.weight, 0.98 * u @ v, atol=1e-3)
    assert layer.lipschitz_bound() <= 0.98 * 1.0002


@pytest.mark.parametrize("shape", [(4, 12), (12, 4), (5, 5)])
def test_an_orthogonal_layer_of_zeros_stays_finite_and_trains_away(shape):
    layer = OrthogonalLinear(*shape).double()
    torch.nn.init.zeros_(layer.weight)
    layer.renormalise(5)
    assert not layer.weight.any()
    assert layer.lipschitz_bound() == 0
    layer(noise(50, shape[0])).square().add(layer(noise(50, shape[0]))).sum().backward()
    with torch.no_grad():
        layer.weight.sub_(1e-3 * layer.weight.grad)
    layer.renormalise(5)
    assert layer.weight.isfinite().all()
    assert 0.97 < layer.lipschitz_bound() <= 0.98 * 1.0002


@pytest.mark.parametrize("estimate", [1.0, 0.4, 0.1, 1e-6, 0.0])
def test_the_nearest_isometry_does_not_need_a_good_estimate_of_the_norm(estimate):
    u, _, v = torch.linalg.svd(noise(2, 9, 6), full_matrices=False)
    values = torch.tensor([1.0, 0.4, 0.4, 0.4, 0.3, 0.3], dtype=torch.float64)
    found = nearest_isometry(u @ values.diag() @ v, torch.full((2,), estimate, dtype=torch.float64), 20)
    assert torch.allclose(found, u @ v, atol=1e-6)


def test_an_orthogonal_layer_keeps_all_directions_where_a_normalised_one_loses_them():
    torch.manual_seed(0)
    pushed = {}
    for kind in (NormalisedLinear, OrthogonalLinear):
        layer = kind(8, 16).double()
        for _ in range(20):  # steps of an optimiser that all agree on one direction
            with torch.no_grad():
                layer.weight.add_(0.05)
            layer.renormalise(5)
        pushed[kind] = torch.linalg.svdvals(layer.effective_weight().detach())
    assert float(pushed[NormalisedLinear][1]) < 0.2
    assert float(pushed[OrthogonalLinear][1]) > 0.9


@pytest.mark.parametrize("coefficient", [0.0, -1.0, 1.01])
def test_a_coefficient_that_is_not_positive_or_above_one_is_refused(coefficient):
    with pytest.raises(ValueError, match="coefficient"):
        NormalisedLinear(2, 2, coefficient=coefficient)


def test_an_even_kernel_is_refused():
    with pytest.raises(ValueError, match="odd"):
        NormalisedConv2d(1, 1, 2, (4, 4))
