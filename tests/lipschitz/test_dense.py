"""The dense branch: its parts, its bound, and the size of the published networks."""

import math

import pytest
import torch
from torch import nn

from acf.errors import ConfigError
from acf.lipschitz import CLipSwish, DenseLayer, LipSwish, NormalisedConv2d
from acf.lipschitz.dense import dense_branch
from acf.registry import ACTIVATIONS, ATTENTIONS, JOINS
from acf.settings.config import ModelConfig
from tests.building_blocks.jacobians import jacobian_norm
from tests.building_blocks.layers import Times
from tests.building_blocks.noise import noise
from tests.building_blocks.settings import model_config, with_attention

SHAPE = (2, 3, 4)


def config(**settings) -> ModelConfig:
    return model_config(SHAPE, **{"branch": "dense", "dense": {"depth": 2, "growth": 6}, **settings})


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("activation", "new"), [("lipswish", 6), ("elu", 6), ("clipswish", 3)])
def test_each_layer_adds_the_configured_number_of_channels(activation, new):
    branch = dense_branch(config(activation=activation), SHAPE, leading_activation=True)
    first, second, last = branch
    assert isinstance(first, DenseLayer)
    assert isinstance(second, DenseLayer)
    assert tuple(first.linear.weight.shape) == (new, 2, 3, 3)
    assert tuple(second.linear.weight.shape) == (new, 8, 3, 3)
    assert tuple(last.weight.shape) == (2, 14, 1, 1)
    x = noise(5, *SHAPE)
    h = first.double()(x)
    assert h.shape == (5, 8, 3, 4)
    assert second.double()(h).shape == (5, 14, 3, 4)
    assert branch.double()(x).shape == x.shape


@pytest.mark.parametrize("depth", [1, 3, 5])
def test_depth_is_the_number_of_layers_before_the_last_convolution(depth):
    branch = dense_branch(config(dense={"depth": depth, "growth": 4}), SHAPE, leading_activation=False)
    assert len(branch) == depth + 1
    assert branch[-1].weight.shape[1] == 2 + 4 * depth


def test_a_layer_passes_its_input_on():
    layer = DenseLayer(NormalisedConv2d(2, 3, 3, (3, 4)), LipSwish()).double()
    x = noise(2, *SHAPE)
    y = layer(x)
    assert torch.allclose(y[:, :2], x * math.sqrt(0.5), rtol=1e-6)
    assert torch.allclose(y[:, 2:], layer.activation(layer.linear(x)) * math.sqrt(0.5), rtol=1e-6)
    with torch.no_grad():
        layer.angle.zero_()
    assert torch.equal(layer(x)[:, :2], x)
    assert layer(x)[:, 2:].abs().max() == 0


@pytest.mark.parametrize("angle", [-30.0, -1.0, 0.0, 0.3, math.pi / 4, math.pi / 2, 3.0, 100.0])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_bound_of_a_layer_for_every_angle(angle, activation):
    torch.manual_seed(0)
    branch = dense_branch(config(activation=activation), SHAPE, leading_activation=True).double()
    layer = branch[0]
    with torch.no_grad():
        layer.angle.fill_(angle)
        layer.linear.weight.mul_(5)
    layer.linear.converge_norm(1e-12)
    new = layer.linear.lipschitz_bound() * layer.activation.lipschitz_bound()
    expected = math.sqrt(math.cos(angle) ** 2 + (math.sin(angle) * new) ** 2)
    assert layer.lipschitz_bound(12) == pytest.approx(expected, rel=1e-9)
    assert layer.lipschitz_bound(12) <= 1
    largest = max(jacobian_norm(layer, s * noise(1, *SHAPE)) for s in (0.1, 1.0, 5.0))
    assert abs(math.cos(angle)) * 0.9999 <= largest <= layer.lipschitz_bound(12)


def test_bound_of_a_layer_is_attained():
    """A linear map at its bound under an activation of slope 1."""
    layer = DenseLayer(NormalisedConv2d(2, 2, 1, (3, 4), coefficient=0.98), Times(1.0)).double()
    with torch.no_grad():
        layer.linear.weight.copy_(torch.eye(2).view(2, 2, 1, 1))
        layer.linear.converge_norm(1e-12)
        for angle in (0.4, 1.2):
            layer.angle.fill_(angle)
            found = jacobian_norm(layer, noise(1, *SHAPE))
            assert found == pytest.approx(math.hypot(math.cos(angle), 0.98 * math.sin(angle)), rel=1e-9)
            assert found <= layer.lipschitz_bound(12) <= found * 1.0002


def test_gradients_reach_every_parameter():
    branch = dense_branch(config(activation="clipswish"), SHAPE, leading_activation=True).double()
    branch(noise(2, *SHAPE)).square().sum().backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in branch.parameters())
    assert torch.autograd.gradcheck(branch, noise(1, *SHAPE).requires_grad_(True))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_angle_that_is_not_finite_gives_no_bound_below_one(bad):
    branch = dense_branch(config(), SHAPE, leading_activation=True)
    with torch.no_grad():
        branch[1].angle.fill_(bad)
    assert not branch.lipschitz_bound(12) < 1


def test_growth_that_the_activation_cannot_make_is_refused():
    with pytest.raises(ConfigError, match=r"dense\.growth \(7\) must be a multiple of 2"):
        dense_branch(config(activation="clipswish", dense={"depth": 2, "growth": 7}), SHAPE, leading_activation=True)
    dense_branch(config(activation="lipswish", dense={"depth": 2, "growth": 7}), SHAPE, leading_activation=True)


@pytest.mark.parametrize("join", sorted(JOINS))
def test_attention_stands_before_the_last_convolution(join):
    settings = config(**with_attention("sinkhorn", 3, join))
    *layers, joined, last = dense_branch(settings, SHAPE, leading_activation=True)
    assert all(isinstance(layer, DenseLayer) for layer in layers)
    assert hasattr(joined, "share")
    assert tuple(last.weight.shape) == (2, 14 * joined.widening, 1, 1)


def test_attention_as_a_block_of_its_own_leaves_the_branch_alone():
    settings = config(**with_attention("l2", join="block"))
    assert len(dense_branch(settings, SHAPE, leading_activation=True)) == 3


@pytest.mark.parametrize("kind", sorted(ATTENTIONS))
def test_bound_is_below_one_with_every_attention(kind):
    branch = dense_branch(config(**with_attention(kind)), SHAPE, leading_activation=True)
    assert 0 < branch.lipschitz_bound(12) < 1


def test_clipswish_makes_two_channels_of_one():
    branch = dense_branch(config(activation="clipswish"), SHAPE, leading_activation=True)
    assert all(isinstance(layer.activation, CLipSwish) for layer in list(branch)[:2])


# The published sizes (arXiv 2102.02694), 32 x 32 images of three channels in three scales.


def convolutional_parameters(blocks: int, depth: int, growth: int) -> int:
    """Those of all dense blocks and their ActNorms; a map's size plays no part, so the smallest will do."""
    settings = config(activation="clipswish", dense={"depth": depth, "growth": growth})
    scales = [(channels, 2, 2) for channels in (3, 12, 48)]
    return sum(blocks * (parameters(dense_branch(settings, shape, True)) + 2 * shape[0]) for shape in scales)


def published_final_parameters(depth: int, values: int = 48 * 8 * 8) -> int:
    """Four dense blocks on all values: to 64, layers that add 32 (of 16 under CLipSwish), back; and their ActNorms."""
    layers = [(values, 64), *((64 + 32 * i, 16) for i in range(depth)), (64 + 32 * depth, values)]
    return 4 * (sum(a * b + b for a, b in layers) + 2 * values)


def test_parameters_of_the_published_network():
    total = convolutional_parameters(16, 3, 172) + published_final_parameters(3)
    assert total == pytest.approx(24.9e6, rel=2e-3)


@pytest.mark.parametrize(("depth", "growth"), [(2, 318), (4, 122), (5, 92)])
def test_published_depths_have_equal_budgets(depth, growth):
    """The four pairs of depth and growth that the authors compare at one number of parameters."""
    total, optimal = (
        convolutional_parameters(4, d, g) + published_final_parameters(d) for d, g in ((depth, growth), (3, 178))
    )
    assert total == pytest.approx(optimal, rel=0.02)
