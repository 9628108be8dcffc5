"""Ways of joining: what they compute with maps known exactly, and their bounds for all values of their parameters."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from acf.lipschitz import ChannelSplit, Concatenation, ConvexShare
from acf.registry import ATTENTIONS, JOINS, resolve
from tests.building_blocks.jacobians import jacobian_norm
from tests.building_blocks.layers import Times, make_join
from tests.building_blocks.noise import noise

NAMES = pytest.mark.parametrize("name", sorted(JOINS))
VALUES = [-200.0, -8.0, -1.0, 0.0, 0.3, 1.5, math.pi / 2, 3.0, 200.0]


def joined(name: str, inner: nn.Module, share: float = 0.5, channels: int = 4) -> nn.Module:
    return make_join(name, lambda _: inner, channels, share).double()


X = noise(1, 4, 2, 1)


@pytest.mark.parametrize("factor", [1.0, -1.0, 0.0, 2.0])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_convex_share(factor, share):
    layer = joined("convex", Times(factor), share)
    assert torch.allclose(layer(X), (1 - share + share * factor) * X, rtol=1e-6, atol=1e-7)
    assert layer.lipschitz_bound(2) == pytest.approx(1 - share + share * abs(factor), rel=1e-6)
    if factor >= 0:
        assert jacobian_norm(layer, X) == pytest.approx(layer.lipschitz_bound(2), rel=1e-12)


@pytest.mark.parametrize("factor", [1.0, -1.0, 0.0, 2.0])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_concatenation(factor, share):
    layer = joined("concatenate", Times(factor), share)
    expected = torch.cat([math.sqrt(1 - share) * X, math.sqrt(share) * factor * X], 1)
    assert torch.allclose(layer(X), expected, rtol=1e-6, atol=1e-7)
    assert layer.lipschitz_bound(2) == pytest.approx(math.sqrt(1 - share + share * factor**2), rel=1e-6)
    assert jacobian_norm(layer, X) == pytest.approx(layer.lipschitz_bound(2), rel=1e-12)


@pytest.mark.parametrize("factor", [1.0, -1.0, 0.0, 2.0])
@pytest.mark.parametrize(("share", "attended"), [(0.01, 1), (0.25, 1), (0.5, 2), (0.7, 3), (0.99, 4)])
def test_channel_split(factor, share, attended):
    layer = joined("split", Times(factor), share)
    expected = torch.cat([X[:, : 4 - attended], factor * X[:, 4 - attended :]], 1)
    assert torch.equal(layer(X), expected)
    assert layer.share() == attended / 4
    assert layer.lipschitz_bound(2) == max(1.0, abs(factor))
    if attended < 4:
        assert jacobian_norm(layer, X) == pytest.approx(layer.lipschitz_bound(2), rel=1e-12)


@NAMES
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_the_share_starts_as_configured(name, share):
    assert joined(name, Times(1.0), share).share() == pytest.approx(share, rel=1e-6)


@NAMES
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("factor", [1.0, -1.0, 0.5, 3.0])
def test_bound_holds_for_every_value_of_the_parameter(name, value, factor):
    layer = joined(name, Times(factor))
    with torch.no_grad():
        for parameter in layer.parameters(recurse=False):
            parameter.fill_(value)
    assert 0 <= layer.share() <= 1
    assert jacobian_norm(layer, X) <= layer.lipschitz_bound(2) * (1 + 1e-12)
    assert layer.lipschitz_bound(2) <= max(1.0, abs(factor)) * (1 + 1e-12)


@NAMES
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("kind", sorted(ATTENTIONS))
def test_joined_attention_is_a_contraction_for_every_value(name, value, kind):
    torch.manual_seed(0)
    layer = make_join(name, partial(resolve(ATTENTIONS, kind, "attention"), heads=2), 4).double()
    with torch.no_grad():
        for parameter in layer.parameters(recurse=False):
            parameter.fill_(value)
    assert layer.lipschitz_bound(2) <= 1 + 1e-12
    assert jacobian_norm(layer, X) <= layer.lipschitz_bound(2) * (1 + 1e-12)


@NAMES
def test_channels_widen_as_stated(name):
    for channels in (1, 2, 5):
        layer = joined(name, Times(0.5), 0.5, channels)
        assert layer(noise(3, channels, 2, 2)).shape == (3, layer.widening * channels, 2, 2)


@NAMES
def test_gradients_reach_input_parameter_and_inner_map(name):
    layer = joined(name, Times(0.5), 0.3)
    x = X.clone().requires_grad_(True)
    layer(x).square().sum().backward()
    for tensor in (x, *layer.parameters()):
        assert tensor.grad.isfinite().all()
        assert tensor.grad.abs().max() > 1e-3
    assert torch.autograd.gradcheck(layer, x)


def test_the_share_is_learnt():
    convex, concatenated = joined("convex", Times(2.0)), joined("concatenate", Times(2.0))
    one = torch.ones(1, 4, 1, 1, dtype=torch.float64)
    convex(one).sum().backward()
    assert convex.gamma.grad.item() == pytest.approx(4 * 0.25)  # s (1 - s) (2 - 1) for each of four values
    concatenated(one).sum().backward()
    assert concatenated.angle.grad.item() == pytest.approx(4 * (2 - 1) * math.sqrt(0.5))  # 2 cos(a) - sin(a)
    assert not list(joined("split", Times(2.0)).parameters(recurse=False))


@NAMES
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_parameters_that_are_not_finite_give_no_bound_below_one(name, bad):
    layer = joined(name, Times(0.5))
    for parameter in layer.parameters(recurse=False):
        with torch.no_grad():
            before = parameter.clone()
            parameter.fill_(bad)
        if not layer(X).isfinite().all():
            assert not layer.lipschitz_bound(2) < 1
        with torch.no_grad():
            parameter.copy_(before)
    with torch.no_grad():
        layer.inner.factor.fill_(math.inf)
    assert not layer.lipschitz_bound(2) < 1


@NAMES
def test_stored_weights_give_the_same_map(name):
    layer, other = joined(name, Times(0.5), 0.3), joined(name, Times(2.0), 0.3)
    with torch.no_grad():
        for parameter in layer.parameters(recurse=False):
            parameter.add_(0.4)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(X), layer(X))
    assert other.lipschitz_bound(2) == layer.lipschitz_bound(2)


def test_every_join_stands_in_the_registry():
    known = {resolve(JOINS, name, "way of joining") for name in JOINS}
    assert {ConvexShare, Concatenation, ChannelSplit} <= known
