"""Convex potential layers and the branch made of them."""

import math

import pytest
import torch

from acf.errors import ConfigError
from acf.lipschitz import NormalisedConv2d, PotentialLayer
from acf.lipschitz.potential import potential_branch
from tests.building_blocks.jacobians import jacobian
from tests.building_blocks.noise import noise
from tests.building_blocks.settings import model_config, with_attention
from tests.building_blocks.weights import bring_norms_to_limits, move_all_parameters

SHAPE = (3, 2, 3)


def layer_at_its_limit(kernel: int = 3, hidden: int = 5, coefficient: float = 1.0) -> PotentialLayer:
    torch.manual_seed(0)
    made = PotentialLayer(SHAPE[0], hidden, kernel, SHAPE[1:], coefficient).double()
    return bring_norms_to_limits(move_all_parameters(made), 1e-12)


def with_norm(norm: float) -> PotentialLayer:
    """A layer whose W is 1x1 and `norm` times the identity, which no normalisation has touched."""
    layer = PotentialLayer(SHAPE[0], SHAPE[0], 1, SHAPE[1:], 1.0).double()
    with torch.no_grad():
        layer.linear.weight.copy_(norm * torch.eye(SHAPE[0]).view(SHAPE[0], SHAPE[0], 1, 1))
        layer.linear.left.zero_()  # an estimate of 0, as far below the norm as one can be
        layer.linear.right.zero_()
    return layer


@pytest.mark.parametrize("beta", [-20.0, 0.5, 50.0])
def test_the_map_is_that_of_its_formula(beta: float) -> None:
    layer, x = layer_at_its_limit(), noise(4, *SHAPE)
    with torch.no_grad():
        layer.beta.fill_(beta)
        b = min(max(math.log1p(math.exp(beta)), 0.01), 1e4)
        weight, bias = layer.linear.effective_tensors()
        y = torch.nn.functional.conv2d(x, weight, bias, padding=1)
        bent = torch.log1p(torch.exp(-(b * y).abs())) / b + y.clamp_min(0)
        expected = x - 2 * torch.nn.functional.conv_transpose2d(bent, weight, padding=1)
        torch.testing.assert_close(layer(x), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(layer(x), expected, rtol=1e-9, atol=1e-9)  # with a graph


@pytest.mark.parametrize("kernel", [1, 3])
def test_the_jacobian_is_symmetric_with_eigenvalues_within_minus_one_and_one(kernel: int) -> None:
    layer = layer_at_its_limit(kernel)
    lowest, highest = math.inf, -math.inf
    for bias in (0.0, 1e3, -1e3):  # slopes of all sizes, 1 everywhere, 0 everywhere
        with torch.no_grad():
            layer.linear.bias.fill_(bias)
        matrix = jacobian(layer, noise(1, *SHAPE))
        torch.testing.assert_close(matrix, matrix.mT, rtol=0, atol=1e-12)
        values = torch.linalg.eigvalsh(matrix)
        lowest, highest = min(lowest, float(values.min())), max(highest, float(values.max()))
    assert lowest == pytest.approx(-1, abs=1e-6)
    assert highest == pytest.approx(1, abs=1e-12)
    assert layer.lipschitz_bound() == pytest.approx(1, abs=1e-3)


def test_what_w_does_not_see_keeps_its_length() -> None:
    layer = layer_at_its_limit(1, 1)
    weight = layer.linear.weight.detach().view(-1)
    direction = torch.linalg.svd(weight[None]).Vh[-1]
    x = noise(1, *SHAPE)
    moved = layer(x + direction.view(1, -1, 1, 1)) - layer(x)
    torch.testing.assert_close(moved, direction.view(1, -1, 1, 1).expand_as(moved), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm", [0.5, 1.5])
def test_the_bound_counts_what_the_normalisation_has_missed(norm: float) -> None:
    layer = with_norm(norm)
    expected = max(1.0, 2 * norm**2 - 1)
    assert layer.lipschitz_bound() == pytest.approx(expected, rel=1e-3)
    with torch.no_grad():
        layer.linear.bias.fill_(1e3)
    gain = torch.linalg.matrix_norm(jacobian(layer, noise(1, *SHAPE)), 2)
    assert float(gain) == pytest.approx(abs(1 - 2 * norm**2), rel=1e-9)
    assert float(gain) <= layer.lipschitz_bound()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_has_no_bound_below_one(bad: float) -> None:
    layer = layer_at_its_limit()
    with torch.no_grad():
        layer.linear.weight[0, 0, 0, 0] = bad
    assert not layer.lipschitz_bound() <= 1


@pytest.mark.parametrize("join", ["convex", "concatenate", "split"])
def test_the_branch_has_potential_layers_between_two_convolutions(join: str) -> None:
    settings = model_config(SHAPE, kernels=[3, 1, 3, 1], **with_attention("sinkhorn", join=join))
    first, *inner, joined, last = potential_branch(settings, SHAPE, leading_activation=True)
    assert isinstance(first, NormalisedConv2d)
    assert [type(layer) for layer in inner] == [PotentialLayer, PotentialLayer]
    assert [tuple(layer.linear.weight.shape) for layer in inner] == [(4, 4, 1, 1), (4, 4, 3, 3)]
    assert tuple(first.weight.shape) == (4, 3, 3, 3)
    assert tuple(last.weight.shape) == (3, 4 * joined.widening, 1, 1)


def test_the_bound_of_the_branch_is_the_product_of_two_norms() -> None:
    branch = bring_norms_to_limits(potential_branch(model_config(SHAPE), SHAPE, leading_activation=True).double())
    assert branch.lipschitz_bound(6) == pytest.approx(0.98**2, rel=1e-3)


def test_a_branch_without_potential_layers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"at least three entries"):
        potential_branch(model_config(SHAPE, kernels=[3, 3]), SHAPE, leading_activation=True)
