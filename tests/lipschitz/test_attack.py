"""Nothing the attack finds may exceed what a layer claims, and the attack must be able to find what is wrong."""

import pytest
import torch
from attack import attack, climb, converge, jacobian_norm, power_norm, starts
from defects import (
    DetachedScale,
    FrozenScale,
    PublishedResidual,
    ReshapedConv,
    SquaredNorms,
    UntiedKeys,
    WeightNorms,
)
from torch import nn

from acf.config import ModelConfig
from acf.lipschitz import (
    Branch,
    ConvexShare,
    DotProductSelfAttention,
    L2SelfAttention,
    NormalisedConv2d,
    NormalisedLinear,
)
from acf.lipschitz.branch import conv_branch, fc_branch
from acf.registry import ACTIVATIONS, ATTENTIONS, resolve

ALL_ATTENTIONS = pytest.mark.parametrize("kind", sorted(ATTENTIONS))


def attention(kind: str, channels: int, heads: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return resolve(ATTENTIONS, kind, "attention")(channels, heads)


@ALL_ATTENTIONS
@pytest.mark.parametrize(
    ("shape", "heads"), [((1, 1, 2), 1), ((4, 2, 2), 2), ((4, 3, 3), 4), ((4, 1, 1), 1), ((2, 3, 4), 1)]
)
def test_attention_stays_below_its_bound(kind, shape, heads, record_property):
    layer = attention(kind, shape[0], heads)
    found = attack(layer, shape, steps=80, each=2)
    bound = layer.lipschitz_bound(shape[1] * shape[2])
    record_property("found/bound", found / bound)
    assert found <= bound <= 1


@pytest.mark.parametrize(("kind", "reach"), [("l2", 0.65), ("dot", 0.3)])
def test_the_attack_reaches_a_good_part_of_the_bound(kind, reach):
    # For two tokens of one channel the largest gain known of the undivided L2 map is 1.602.
    assert attack(attention(kind, 1), (1, 1, 2)) >= reach


@ALL_ATTENTIONS
def test_attention_on_many_tokens(kind):
    layer = attention(kind, 8, heads=2).double()
    shape = (8, 7, 7)
    x = climb(layer, starts(shape, each=1), steps=25)
    assert 0 < float(power_norm(layer, x).max()) <= layer.lipschitz_bound(49) <= 1


@pytest.mark.parametrize("size", [(1, 1), (3, 4)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_convolution(kernel, size):
    torch.manual_seed(0)
    layer = NormalisedConv2d(2, 3, kernel, size)
    with torch.no_grad():
        layer.weight.mul_(5)
    converge(layer)
    found = attack(layer, (2, *size), steps=40, each=1)
    assert 0.97 <= found <= layer.lipschitz_bound()


def test_linear():
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Flatten(), NormalisedLinear(12, 5))
    with torch.no_grad():
        layer[1].weight.mul_(5)
    converge(layer)
    found = attack(layer, (3, 2, 2), steps=40, each=1)
    assert 0.97 <= found <= layer[1].lipschitz_bound()


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activation(name):
    layer = resolve(ACTIVATIONS, name, "activation")()
    found = attack(layer, (2, 2, 2), steps=100)
    assert 0.999 <= found <= layer.lipschitz_bound()


def branch(kind: str, activation: str, shape: tuple[int, int, int]) -> Branch:
    torch.manual_seed(0)
    settings = {"kind": "none" if kind == "fc" else kind, "heads": 2}
    config = ModelConfig(
        shape=shape, idim=4, fc_width=6, kernels=[3, 1, 3], activation=activation, attention=settings, blocks=[1]
    )
    made = fc_branch(config, shape) if kind == "fc" else conv_branch(config, shape, leading_activation=True)
    for module in made.modules():
        if isinstance(module, NormalisedConv2d | NormalisedLinear):
            with torch.no_grad():
                module.weight.mul_(4)
    converge(made)
    return made


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("kind", ["none", "fc", *sorted(ATTENTIONS)])
def test_branch(kind, activation, record_property):
    shape = (2, 2, 3)
    g = branch(kind, activation, shape)
    found = attack(g, shape, steps=60, each=1)
    record_property("found/bound", found / g.lipschitz_bound(6))
    assert 0.1 < found <= g.lipschitz_bound(6)


@ALL_ATTENTIONS
def test_convex_share(kind):
    layer = ConvexShare(attention(kind, 2), share=0.3)
    assert 0.7 <= attack(layer, (2, 2, 2), steps=60, each=2) <= layer.lipschitz_bound(4) <= 1


@ALL_ATTENTIONS
def test_published_residual_is_caught(kind):
    assert attack(PublishedResidual(attention(kind, 2)), (2, 2, 2), steps=150, each=1) > 1.1 * PublishedResidual.claim


@pytest.mark.parametrize("defect", [WeightNorms, FrozenScale, SquaredNorms, UntiedKeys])
def test_defective_attention_is_caught(defect):
    torch.manual_seed(0)
    layer = defect(4, 1)
    assert attack(layer, (4, 2, 3), over_weights=False) > 1.5 * layer.lipschitz_bound(6)


def test_norm_of_the_reshaped_kernel_is_caught():
    torch.manual_seed(0)
    layer = ReshapedConv(2, 2, 3, padding=1).double()
    nn.init.constant_(layer.weight, 1.0)
    assert float(jacobian_norm(layer, torch.zeros(1, 2, 5, 5, dtype=torch.float64))) > 2 * ReshapedConv.claim


def differentiates_correctly(layer: nn.Module) -> bool:
    layer.double()
    x = starts((layer.channels, 2, 2), each=1)[:1]
    direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    by_autograd = torch.func.jvp(layer, (x,), (direction,))[1]
    h = 1e-6 * float(x.abs().max())
    with torch.no_grad():
        by_difference = (layer(x + h * direction) - layer(x - h * direction)) / (2 * h)
    return torch.allclose(by_autograd, by_difference, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("layer", "right"), [(L2SelfAttention, True), (DotProductSelfAttention, True), (DetachedScale, False)]
)
def test_scale_is_differentiated_through(layer, right):
    torch.manual_seed(0)
    assert differentiates_correctly(layer(2, 1)) == right
