"""Attention layers against plain loops, and their symmetries."""

import math

import pytest
import torch
from torch import Tensor

from acf.lipschitz import DotProductSelfAttention, L2SelfAttention, dot_attention_constant, l2_attention_constant
from acf.registry import ATTENTIONS, resolve

KINDS = pytest.mark.parametrize("kind", sorted(ATTENTIONS))


def make(kind: str, channels: int, heads: int):
    torch.manual_seed(channels + heads)
    layer = resolve(ATTENTIONS, kind, "attention")(channels, heads).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


def maps(*shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def l2_head(q: Tensor, bandwidth: float) -> Tensor:
    """One head by loops over tokens; q (N, d)."""
    rows = []
    for i in range(len(q)):
        weights = torch.stack([torch.exp(-bandwidth * (q[i] - q[j]).square().sum()) for j in range(len(q))])
        rows.append(sum(weights[j] * q[j] for j in range(len(q))) / weights.sum())
    return torch.stack(rows) / l2_attention_constant(len(q))


def dot_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    u = math.sqrt(sum(float(row.norm()) ** 2 for row in q))
    longest_key, longest_value = max(float(row.norm()) for row in k), max(float(row.norm()) for row in v)
    scale = max(u * longest_key, u * longest_value, longest_key * longest_value)
    rows = []
    for i in range(len(q)):
        weights = [math.exp(float(q[i] @ k[j]) / scale) for j in range(len(q))]
        rows.append(sum(w * row for w, row in zip(weights, v, strict=True)) / sum(weights))
    return torch.stack(rows) / dot_attention_constant(len(q))


@torch.no_grad()
def by_loops(layer, x: Tensor) -> Tensor:
    channels = layer.channels
    width = channels // layer.heads
    projection, out = layer.project.effective_weight(), layer.output
    images = []
    for image in x:
        tokens = image.flatten(1).T
        heads = []
        for h in range(layer.heads):
            parts = [tokens @ p[h * width : (h + 1) * width].T for p in projection.split(channels)]
            if isinstance(layer, L2SelfAttention):
                heads.append(l2_head(parts[0], math.exp(float(layer.log_bandwidth[h]))))
            else:
                heads.append(dot_head(*parts))
        images.append((torch.cat(heads, 1) @ out.effective_weight().T + out.bias).T.reshape(image.shape))
    return torch.stack(images)


@KINDS
@pytest.mark.parametrize(("channels", "heads"), [(1, 1), (4, 1), (4, 2), (6, 3), (4, 4)])
@pytest.mark.parametrize("size", [(1, 1), (2, 3)])
def test_equals_loops_over_heads_and_tokens(kind, channels, heads, size):
    layer, x = make(kind, channels, heads), maps(3, channels, *size)
    assert torch.allclose(layer(x), by_loops(layer, x), rtol=1e-10, atol=1e-12)


@KINDS
def test_permuting_the_positions_permutes_the_output(kind):
    layer, x = make(kind, 4, 2), maps(2, 4, 3, 3)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))

    def permuted(t: Tensor) -> Tensor:
        return t.flatten(2)[:, :, order].view(t.shape)

    assert torch.allclose(layer(permuted(x)), permuted(layer(x)), rtol=1e-10, atol=1e-12)
    assert not torch.allclose(layer(permuted(x)), layer(x))


@KINDS
def test_samples_do_not_see_each_other(kind):
    layer, x = make(kind, 4, 2), maps(5, 4, 2, 2)
    assert torch.allclose(layer(x)[3:4], layer(x[3:4]), rtol=1e-12)


@KINDS
def test_tokens_see_each_other(kind):
    layer, x = make(kind, 4, 2), maps(1, 4, 2, 2)
    changed = x.clone()
    changed[0, :, 1, 1] += 1
    assert not torch.allclose(layer(x)[0, :, 0, 0], layer(changed)[0, :, 0, 0])


@KINDS
def test_one_token_is_mapped_linearly(kind):
    layer, x = make(kind, 4, 2), maps(6, 4, 1, 1)
    zero = layer(torch.zeros_like(x))
    assert torch.allclose(layer(3 * x) - zero, 3 * (layer(x) - zero), rtol=1e-10, atol=1e-12)


@KINDS
@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e-6, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_with_finite_gradients_at_every_scale(kind, scale, dtype):
    layer = make(kind, 4, 2).to(dtype)
    x = maps(2, 4, 2, 3, scale=scale).to(dtype).requires_grad_(True)
    layer(x).square().sum().backward()
    assert layer(x).isfinite().all()
    assert all(t.grad.isfinite().all() for t in (x, *layer.parameters()))


@KINDS
def test_derivatives(kind):
    layer = make(kind, 2, 1)
    assert torch.autograd.gradcheck(layer, maps(1, 2, 2, 2).requires_grad_(True))
    assert torch.autograd.gradgradcheck(layer, maps(1, 2, 1, 2).requires_grad_(True))


@KINDS
def test_float32_agrees_with_float64(kind):
    layer, x = make(kind, 4, 2), maps(2, 4, 3, 3)
    expected = layer(x)
    assert torch.allclose(layer.float()(x.float()).double(), expected, rtol=1e-4, atol=1e-5)


@KINDS
def test_heads_must_divide_the_channels(kind):
    with pytest.raises(ValueError, match="multiple of heads"):
        resolve(ATTENTIONS, kind, "attention")(4, 3)


def test_bandwidth_of_one_head_changes_only_that_head():
    layer, x = make("l2", 4, 2), maps(1, 4, 2, 2)
    with torch.no_grad():
        layer.output.weight.copy_(torch.eye(4))
        before = layer(x)
        layer.log_bandwidth[1] += 1
        after = layer(x)
    assert torch.allclose(before[:, :2], after[:, :2])
    assert not torch.allclose(before[:, 2:], after[:, 2:])


def test_dot_attention_does_not_change_with_the_scale_of_the_input():
    layer = DotProductSelfAttention(4, 2).double()
    with torch.no_grad():
        layer.output.bias.zero_()
    x = maps(1, 4, 2, 2)
    assert torch.allclose(layer(100 * x), 100 * layer(x), rtol=1e-10)
