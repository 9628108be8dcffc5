"""Scales of an attention's core that start from the first batch of training."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from acf.registry import ATTENTIONS
from tests.building_blocks.noise import noise
from tests.lipschitz.attention.fresh import core_parameters, make_fresh_attention, with_biases_zero

KINDS = pytest.mark.parametrize("kind", sorted(ATTENTIONS))
X = noise(6, 4, 3, 3)


def started(kind: str, x: Tensor, heads: int = 2) -> nn.Module:
    layer = with_biases_zero(make_fresh_attention(kind, 4, heads)).train()
    layer(x)
    return layer.eval()


def tokens(layer: nn.Module, x: Tensor, part: int) -> Tensor:
    """Projected tokens (B, N, heads, d) of one part of (Q, K, V), or of the only one."""
    projected = layer.project(x.flatten(2).transpose(1, 2)).detach()
    return projected.unflatten(-1, (layer.projections, layer.heads, -1))[:, :, part]


@KINDS
def test_only_the_first_batch_of_training_counts(kind):
    layer = make_fresh_attention(kind, 4, 2)
    before = [p.detach().clone() for p in core_parameters(layer)]
    layer(X)
    assert all(torch.equal(a, b) for a, b in zip(core_parameters(layer), before, strict=True))
    layer.train()
    first = layer(X)
    after = [p.detach().clone() for p in core_parameters(layer)]
    assert bool(before) == any(not torch.equal(a, b) for a, b in zip(after, before, strict=True))
    layer(100 * X)
    assert all(torch.equal(a, b) for a, b in zip(core_parameters(layer), after, strict=True))
    assert torch.equal(layer.eval()(X), first)


@KINDS
def test_copies_and_stored_weights_remember_that_the_first_batch_has_passed(kind):
    layer, loaded = started(kind, X), make_fresh_attention(kind, 4, 2).train()
    loaded.load_state_dict(layer.state_dict())
    for other in (loaded, copy.deepcopy(layer).train()):
        assert torch.equal(other(100 * X), layer(100 * X))


@KINDS
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_map_does_not_depend_on_the_unit_of_the_data(kind, scale):
    assert torch.allclose(
        started(kind, scale * X)(scale * X), scale * started(kind, X)(X), rtol=1e-9, atol=1e-12 * scale
    )


@KINDS
def test_bound_holds_after_a_first_batch_of_any_scale(kind):
    for scale in (1e-4, 1.0, 1e4):
        assert 0 < started(kind, scale * X).lipschitz_bound(9) <= 1


@KINDS
def test_gradients_pass_through_the_first_batch(kind):
    layer, x = make_fresh_attention(kind, 4, 2).train(), X.clone().requires_grad_(True)
    layer(x).square().sum().backward()
    assert all(t.grad.isfinite().all() and t.grad.abs().max() > 0 for t in (x, *layer.parameters()))


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("first", ["zeros", "equal tokens", "one position"])
def test_a_first_batch_without_differences(kind, dtype, first):
    x = {"zeros": 0 * X, "equal tokens": noise(6, 4, 1, 1).expand(6, 4, 3, 3), "one position": X[..., :1, :1]}[first]
    layer = make_fresh_attention(kind, 4, 2).to(dtype).train()
    for batch in (x, X):
        z = batch.to(dtype).clone().requires_grad_(True)
        layer.zero_grad()
        layer(z).square().sum().backward()
        assert all(t.grad.isfinite().all() for t in (z, *layer.parameters()))
        assert layer(z).isfinite().all()


@KINDS
@pytest.mark.parametrize("size", [1.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_heads_without_differences_keep_their_scales(kind, size, dtype):
    """Zeros have no length, and equal tokens no distance; anything else was stored for ever."""
    equal = size * noise(6, 4, 1, 1).expand(6, 4, 3, 3)
    layer = with_biases_zero(make_fresh_attention(kind, 4, 2)).to(dtype).train()
    before = [p.detach().clone() for p in core_parameters(layer)]
    layer((equal if kind == "l2" else 0 * equal).to(dtype))
    assert all(torch.equal(a, b) for a, b in zip(core_parameters(layer), before, strict=True))
    assert layer.initialised


@pytest.mark.parametrize("kind", ["clip", "sinkhorn"])
def test_radii_are_typical_lengths(kind):
    layer = started(kind, X * torch.tensor([1.0, 1.0, 5.0, 5.0]).view(1, 4, 1, 1))
    x = X * torch.tensor([1.0, 1.0, 5.0, 5.0]).view(1, 4, 1, 1)
    q, k, v = (tokens(layer, x, part) for part in range(3))
    for head in range(2):
        lengths = [float(row.norm()) for part in (q, k) for row in part[:, :, head].flatten(0, 1)]
        expected = math.sqrt(sum(a**2 for a in lengths) / len(lengths))
        assert layer.log_radius[head].exp().item() == pytest.approx(expected, rel=1e-9)
        assert 0.2 < sum(a > expected for a in lengths) / len(lengths) < 0.7
        if kind == "clip":
            expected = float(v[:, :, head].square().sum(-1).mean().sqrt())
            assert layer.log_value_radius[head].exp().item() == pytest.approx(expected, rel=1e-9)


def test_bandwidths_are_inverse_mean_squared_distances():
    layer = started("l2", X)
    q = tokens(layer, X, 0)
    for head in range(2):
        squares = [float((a - b).square().sum()) for sample in q[:, :, head] for a in sample for b in sample]
        expected = len(squares) / sum(squares)
        assert layer.log_bandwidth[head].exp().item() == pytest.approx(expected, rel=1e-9)
