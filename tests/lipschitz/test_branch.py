"""Branches: what they are made of and the bound of the whole."""

import math

import pytest
import torch
from torch import nn

from acf.config import ModelConfig
from acf.errors import ConfigError
from acf.lipschitz import ELU, Branch, ConvexShare, L2SelfAttention, LipSwish, NormalisedConv2d, NormalisedLinear
from acf.lipschitz.branch import conv_branch, fc_branch


def config(**settings) -> ModelConfig:
    return ModelConfig(**{"shape": (2, 3, 4), "idim": 6, "fc_width": 5, "blocks": [1], **settings})


def test_conv_branch_without_attention():
    layers = list(conv_branch(config(), (2, 3, 4), leading_activation=False))
    assert [type(layer) for layer in layers] == [
        NormalisedConv2d, LipSwish, NormalisedConv2d, LipSwish, NormalisedConv2d,
    ]  # fmt: skip
    shapes = [tuple(layer.weight.shape) for layer in layers[::2]]
    assert shapes == [(6, 2, 3, 3), (6, 6, 1, 1), (2, 6, 3, 3)]


def test_leading_activation_and_attention_before_the_last_convolution():
    settings = config(attention={"kind": "l2", "heads": 3, "share": 0.25}, activation="elu")
    layers = list(conv_branch(settings, (2, 3, 4), leading_activation=True))
    assert isinstance(layers[0], ELU)
    assert isinstance(layers[-2], ConvexShare)
    assert isinstance(layers[-2].inner, L2SelfAttention)
    assert (layers[-2].inner.channels, layers[-2].inner.heads) == (6, 3)
    assert float(torch.sigmoid(layers[-2].gamma.detach())) == pytest.approx(0.25)


def test_fc_branch_has_three_dense_layers_after_activations():
    branch = fc_branch(config(), (2, 3, 4))
    kinds = [type(layer) for layer in branch]
    dense = [LipSwish, NormalisedLinear]
    assert kinds == [nn.Flatten, *dense, *dense, *dense, nn.Unflatten]
    assert branch(torch.zeros(7, 2, 3, 4)).shape == (7, 2, 3, 4)


def test_bound_is_the_product():
    branch = conv_branch(config(attention={"kind": "dot", "heads": 2}), (2, 3, 4), leading_activation=True)
    bounds = [layer.lipschitz_bound(12) for layer in branch]
    assert len(bounds) == 7
    assert branch.lipschitz_bound(12) == pytest.approx(math.prod(bounds), rel=1e-12)


def test_a_layer_without_bound_has_no_certificate():
    with pytest.raises(TypeError, match="Tanh"):
        Branch(NormalisedLinear(2, 2), nn.Tanh()).lipschitz_bound(1)


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match=r"heads \(4\).*width \(6\)"):
        conv_branch(config(attention={"kind": "l2", "heads": 4}), (2, 3, 4), leading_activation=False)


class Double(nn.Module):
    """2 x."""

    def forward(self, x):
        return 2 * x

    def lipschitz_bound(self, n_tokens):
        return 2.0


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_convex_share(share):
    layer = ConvexShare(Double(), share).double()
    x = torch.linspace(-1, 1, 8, dtype=torch.float64).view(1, 2, 2, 2)
    assert torch.allclose(layer(x), (1 + share) * x, rtol=1e-6)
    assert layer.lipschitz_bound(4) == pytest.approx(1 + share, rel=1e-6)


@pytest.mark.parametrize("gamma", [-200.0, -1.0, 0.0, 3.0, 200.0])
def test_convex_share_is_contractive_for_every_gamma(gamma):
    torch.manual_seed(0)
    layer = ConvexShare(L2SelfAttention(4, 2))
    with torch.no_grad():
        layer.gamma.fill_(gamma)
    assert layer.lipschitz_bound(9) <= 1


def test_convex_share_is_learnt():
    layer = ConvexShare(Double())
    layer(torch.ones(1, 1, 1, 1)).sum().backward()
    assert float(layer.gamma.grad) == pytest.approx(0.25)
