"""Branches: what they are made of and the bound of the whole."""

import math
from itertools import product

import pytest
import torch
from torch import nn

from acf.lipschitz import (
    ELU,
    Branch,
    ChannelSplit,
    Concatenation,
    ConvexShare,
    L2SelfAttention,
    LipSwish,
    NormalisedConv2d,
    NormalisedLinear,
    SinkhornSelfAttention,
)
from acf.lipschitz.branch import Reshape, attention_branch, conv_branch, fc_branch
from acf.registry import ACTIVATIONS, ATTENTIONS, BRANCHES, JOINS, resolve
from acf.settings.config import ModelConfig
from tests.building_blocks.noise import noise
from tests.building_blocks.settings import model_config, with_attention

SHAPE = (2, 3, 4)


def config(**settings) -> ModelConfig:
    return model_config(SHAPE, idim=6, **settings)


def test_conv_branch_without_attention():
    layers = list(conv_branch(config(), SHAPE, leading_activation=False))
    assert [type(layer) for layer in layers] == [
        NormalisedConv2d, LipSwish, NormalisedConv2d, LipSwish, NormalisedConv2d,
    ]  # fmt: skip
    shapes = [tuple(layer.weight.shape) for layer in layers[::2]]
    assert shapes == [(6, 2, 3, 3), (6, 6, 1, 1), (2, 6, 3, 3)]


def test_convolutions_take_the_channels_that_the_activation_makes():
    layers = list(conv_branch(config(activation="clipswish"), SHAPE, leading_activation=True))
    shapes = [tuple(layer.weight.shape) for layer in layers if isinstance(layer, NormalisedConv2d)]
    assert shapes == [(6, 4, 3, 3), (6, 12, 1, 1), (2, 12, 3, 3)]
    shapes = [tuple(m.weight.shape) for m in fc_branch(config(activation="clipswish"), SHAPE).modules()
              if isinstance(m, NormalisedLinear)]  # fmt: skip
    assert shapes == [(5, 48), (5, 10), (24, 10)]


def test_leading_activation_and_attention_before_the_last_convolution():
    settings = config(activation="elu", **with_attention("l2", 3, share=0.25))
    layers = list(conv_branch(settings, SHAPE, leading_activation=True))
    assert isinstance(layers[0], ELU)
    assert isinstance(layers[-2], ConvexShare)
    assert isinstance(layers[-2].inner, L2SelfAttention)
    assert (layers[-2].inner.channels, layers[-2].inner.heads) == (6, 3)
    assert layers[-2].share() == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("join", "kind", "attended", "last"),
    [("convex", ConvexShare, 6, 6), ("concatenate", Concatenation, 6, 12), ("split", ChannelSplit, 2, 6)],
)
def test_ways_of_joining(join, kind, attended, last):
    settings = config(**with_attention("sinkhorn", 4, join, share=0.3))
    layers = list(conv_branch(settings, SHAPE, leading_activation=True))
    assert isinstance(layers[-2], kind)
    assert isinstance(layers[-2].inner, SinkhornSelfAttention)
    assert layers[-2].inner.channels == attended
    assert layers[-1].weight.shape[1] == last


def test_attention_as_a_block_of_its_own():
    settings = config(**with_attention("l2", 4, "block"))
    assert not any(isinstance(m, L2SelfAttention) for m in conv_branch(settings, SHAPE, True).modules())
    (attention,) = attention_branch(settings, SHAPE)
    assert isinstance(attention, L2SelfAttention)
    assert (attention.channels, attention.heads, attention.head_width) == (2, 4, 2)


def test_fc_branch_has_three_dense_layers_after_activations():
    branch = fc_branch(config(), SHAPE)
    kinds = [type(layer) for layer in branch]
    dense = [LipSwish, NormalisedLinear]
    assert kinds == [Reshape, *dense, *dense, *dense, Reshape]
    assert branch(torch.zeros(7, *SHAPE)).shape == (7, *SHAPE)


def test_the_bound_of_a_branch_is_the_product_of_its_layers_bounds():
    branch = conv_branch(config(**with_attention("dot")), SHAPE, leading_activation=True)
    bounds = [layer.lipschitz_bound(12) for layer in branch]
    assert len(bounds) == 7
    assert branch.lipschitz_bound(12) == pytest.approx(math.prod(bounds), rel=1e-12)


def test_a_layer_without_bound_has_no_certificate():
    branch = Branch(NormalisedLinear(2, 2), nn.Tanh())
    for refused in (lambda: branch.lipschitz_bound(1), branch.effective_tensors):
        with pytest.raises(TypeError, match=r"Tanh has no lipschitz_bound.* the branch has no certificate"):
            refused()


def test_heads_need_not_divide_the_width():
    branch = conv_branch(config(**with_attention("l2", 4)), SHAPE, leading_activation=False)
    assert branch(torch.zeros(1, *SHAPE)).shape == (1, *SHAPE)
    assert branch.lipschitz_bound(12) < 1


# A block of attention has neither branch nor activation, a convex potential layer no activation.
COMBINATIONS = [
    (branch, join, kind, activation)
    for branch, join, kind, activation in product(BRANCHES, [*JOINS, "block"], sorted(ATTENTIONS), sorted(ACTIVATIONS))
    if (join != "block" or (branch, activation) == ("conv", "lipswish"))
    and (branch != "potential" or activation == "lipswish")
]


@pytest.mark.parametrize(("branch", "join", "kind", "activation"), COMBINATIONS)
def test_every_branch_join_attention_and_activation_go_together(branch, join, kind, activation):
    torch.manual_seed(0)
    settings = config(branch=branch, activation=activation, **with_attention(kind, 4, join))
    if join == "block":
        made = attention_branch(settings, SHAPE)
    else:
        made = resolve(BRANCHES, branch, "branch")(settings, SHAPE, leading_activation=True)
    assert made.lipschitz_bound(12) < 1
    made.double()
    x = noise(2, *SHAPE).requires_grad_(True)
    y = made(x)
    assert y.shape == x.shape
    (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    first.square().sum().backward()
    for name, parameter in made.named_parameters():
        # The last bias and, where the map is linear in them, others do not show in a second derivative.
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    made.zero_grad()
    made(x).square().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
