"""Attention layers against plain loops, their symmetries, derivatives and extreme inputs and parameters."""

import copy
import itertools
import math
import pickle

import pytest
import torch
from torch import Tensor

from acf.lipschitz.attention.self_attention import SelfAttention, merge_heads, to_maps
from acf.registry import ATTENTIONS, resolve
from tests.building_blocks.noise import noise
from tests.building_blocks.weights import move_all_parameters
from tests.lipschitz.attention.fresh import core_parameters, make_fresh_attention, with_biases_zero
from tests.lipschitz.loops import by_loops

KINDS = pytest.mark.parametrize("kind", sorted(ATTENTIONS))
BALLS = pytest.mark.parametrize("kind", ["clip", "sinkhorn"])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def make_moved_attention(kind: str, channels: int, heads: int) -> SelfAttention:
    return move_all_parameters(make_fresh_attention(kind, channels, heads))


def maps(*shape: int, scale: float = 1.0) -> Tensor:
    return scale * noise(*shape, seed=1)


@KINDS
@pytest.mark.parametrize(("channels", "heads"), [(1, 1), (4, 1), (4, 2), (6, 3), (4, 4), (5, 2), (4, 3), (2, 5)])
@pytest.mark.parametrize("size", [(1, 1), (2, 3)])
def test_equals_loops_over_heads_and_tokens(kind, channels, heads, size):
    layer, x = make_moved_attention(kind, channels, heads), maps(3, channels, *size)
    assert layer(x).shape == x.shape
    assert torch.allclose(layer(x), by_loops(kind, layer, x), rtol=1e-10, atol=1e-11)


@KINDS
@pytest.mark.parametrize(("channels", "heads"), [(4, 1), (4, 3), (2, 5)])
@torch.no_grad()
def test_the_weights_that_a_layer_says_are_those_it_uses(kind, channels, heads):
    layer, x = make_moved_attention(kind, channels, heads), maps(3, channels, 2, 3)
    weights, values = layer.weights_and_values_of(x)
    assert weights.shape == (3, heads, 6, 6)
    assert torch.allclose(
        to_maps(layer.output(merge_heads(weights @ values)), x.shape), layer(x), rtol=1e-12, atol=1e-14
    )
    assert torch.allclose(layer.value_and_vjp(x, layer.effective_tensors(), x.dtype)[0], layer(x), rtol=1e-9)
    assert weights.min() > 0
    assert torch.allclose(weights.sum(-1), torch.ones(3, heads, 6, dtype=torch.float64))
    for head in range(heads):
        (some, some_values), here = layer.weights_and_values_of(x, slice(head, head + 1)), slice(head, head + 1)
        assert torch.allclose(some, weights[:, here], rtol=1e-12)
        assert torch.allclose(some_values, values[:, here], rtol=1e-12)


@KINDS
@pytest.mark.parametrize("scale", [0.01, 30.0])
def test_equals_loops_for_short_and_long_tokens(kind, scale):
    layer, x = make_moved_attention(kind, 4, 2), maps(2, 4, 2, 3, scale=scale)
    assert torch.allclose(layer(x), by_loops(kind, layer, x), rtol=1e-10, atol=1e-11 * scale)


@KINDS
@pytest.mark.parametrize(("channels", "heads"), [(4, 1), (4, 3), (2, 5)])
def test_any_number_of_heads_is_taken_and_proven(kind, channels, heads):
    layer = make_moved_attention(kind, channels, heads)
    assert layer.head_width == -(-channels // heads)
    for parameter in core_parameters(layer):
        assert len(parameter) == heads
    assert 0 < layer.lipschitz_bound(7) <= 1


@KINDS
@pytest.mark.parametrize(("channels", "heads"), [(0, 1), (4, 0), (-1, 1)])
def test_no_channels_or_heads_are_refused(kind, channels, heads):
    with pytest.raises(ValueError, match="at least one"):
        resolve(ATTENTIONS, kind, "attention")(channels, heads)


@KINDS
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 2), (7, 7)])
def test_feature_maps_of_any_size(kind, size):
    layer, x = make_moved_attention(kind, 3, 2), maps(2, 3, *size)
    assert layer(x).shape == x.shape
    # Positions are a set: their arrangement in rows plays no part.
    assert torch.allclose(layer(x).flatten(2), layer(x.view(2, 3, 1, -1)).flatten(2), rtol=1e-12)
    assert layer.lipschitz_bound(size[0] * size[1]) <= 1


@KINDS
def test_permuting_the_positions_permutes_the_output(kind):
    layer, x = make_moved_attention(kind, 4, 2), maps(2, 4, 3, 3)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))

    def permuted(t: Tensor) -> Tensor:
        return t.flatten(2)[:, :, order].view(t.shape)

    assert torch.allclose(layer(permuted(x)), permuted(layer(x)), rtol=1e-10, atol=1e-12)
    assert not torch.allclose(layer(permuted(x)), layer(x))


@KINDS
def test_samples_do_not_see_each_other(kind):
    layer, x = make_moved_attention(kind, 4, 2), maps(5, 4, 2, 2)
    assert torch.allclose(layer(x)[3:4], layer(x[3:4]), rtol=1e-12)
    x[0] *= 1e6
    assert torch.allclose(layer(x)[3:4], layer(x[3:4]), rtol=1e-12)


@KINDS
def test_tokens_see_each_other(kind):
    layer, x = make_moved_attention(kind, 4, 2), maps(1, 4, 2, 2)
    changed = x.clone()
    changed[0, :, 1, 1] += 1
    assert not torch.allclose(layer(x)[0, :, 0, 0], layer(changed)[0, :, 0, 0])


@KINDS
def test_one_short_token_is_mapped_linearly(kind):
    layer, x = with_biases_zero(make_moved_attention(kind, 4, 2)), maps(6, 4, 1, 1, scale=0.05)
    assert torch.allclose(layer(3 * x), 3 * layer(x), rtol=1e-10, atol=1e-12)
    assert layer(x).norm() > 0.01 * x.norm()


@BALLS
def test_long_tokens_are_clipped(kind):
    layer, x = with_biases_zero(make_moved_attention(kind, 4, 2)), maps(2, 4, 2, 3, scale=1e4)
    assert torch.allclose(layer(1000 * x), layer(x), rtol=1e-9)
    radius = layer.log_radius.exp()
    if kind == "clip":
        longest = layer.log_value_radius.exp()
    else:
        longest = radius / (math.sqrt(2) * 2 * torch.sigmoid(layer.sharpness))
    assert (layer(x).flatten(2).norm(dim=1) <= longest.square().sum().sqrt()).all()


@KINDS
@DTYPES
@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e-6, 1.0, 1e3, 1e6])
def test_finite_with_finite_derivatives_at_every_scale(kind, scale, dtype):
    for layer in (make_fresh_attention(kind, 4, 2).to(dtype), make_moved_attention(kind, 4, 2).to(dtype)):
        x = maps(2, 4, 2, 3, scale=scale).to(dtype).requires_grad_(True)
        (first,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
        first.sum().backward()
        layer(x).square().sum().backward()
        assert layer(x).isfinite().all()
        assert first.isfinite().all()
        assert all(t.grad.isfinite().all() for t in (x, *layer.parameters()))


@KINDS
def test_derivatives_in_the_input_and_in_every_parameter(kind):
    layer = make_moved_attention(kind, 2, 1)
    names = [name for name, _ in layer.named_parameters()]

    def f(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), x)

    parameters = [p.detach().clone().requires_grad_(True) for p in layer.parameters()]
    x = maps(1, 2, 2, 2).requires_grad_(True)
    assert torch.autograd.gradcheck(f, (x, *parameters), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(f, (x[..., :1].detach().requires_grad_(True), *parameters))


@KINDS
def test_forward_and_reverse_mode_agree_sample_by_sample(kind):
    layer, x = make_moved_attention(kind, 2, 2), maps(3, 2, 2, 2)

    def one(z: Tensor) -> Tensor:
        return layer(z.unsqueeze(0)).flatten()

    backward, forward = (torch.func.vmap(d(one))(x) for d in (torch.func.jacrev, torch.func.jacfwd))
    assert torch.allclose(backward, forward, rtol=1e-9, atol=1e-12)
    for z, expected in zip(x, backward, strict=True):
        assert torch.allclose(torch.autograd.functional.jacobian(one, z), expected, rtol=1e-9, atol=1e-12)


@KINDS
@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0])
def test_float32_agrees_with_float64(kind, scale):
    layer, x = make_moved_attention(kind, 4, 2), maps(2, 4, 3, 3, scale=scale)
    expected = layer(x)
    assert torch.allclose(layer.float()(x.float()).double(), expected, rtol=1e-4, atol=1e-5 * max(scale, 1))


@KINDS
def test_copies_and_stored_weights_give_the_same_map(kind):
    layer, x = make_moved_attention(kind, 4, 3), maps(2, 4, 2, 2)
    loaded = resolve(ATTENTIONS, kind, "attention")(4, 3).double().eval()
    assert not torch.equal(loaded(x), layer(x))
    loaded.load_state_dict(layer.state_dict())
    for other in (loaded, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), layer(x))
        assert other.lipschitz_bound(4) == layer.lipschitz_bound(4)


@KINDS
@pytest.mark.parametrize(("dtype", "extreme"), [(torch.float64, 50.0), (torch.float32, 20.0)])
def test_extreme_parameters_keep_bound_and_stay_finite(kind, dtype, extreme):
    layer = make_fresh_attention(kind, 4, 2).to(dtype)
    for values in itertools.product((-extreme, extreme, 0.0), repeat=len(core_parameters(layer))):
        with torch.no_grad():
            for parameter, value in zip(core_parameters(layer), values, strict=True):
                parameter.fill_(value)
        assert layer.lipschitz_bound(6) <= 1
        for scale in (0.0, 1.0, 1e6):
            x = maps(2, 4, 2, 3, scale=scale).to(dtype).requires_grad_(True)
            y = layer(x)
            gradients = torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])
            assert all(t.isfinite().all() for t in (y, *gradients)), (values, scale)


@KINDS
def test_extreme_parameters_leave_a_contraction(kind):
    layer, x = make_fresh_attention(kind, 2, 1), torch.cat([maps(3, 2, 1, 3, scale=s) for s in (0.01, 1.0, 100.0)])
    for values in itertools.product((-8.0, 8.0, 0.0), repeat=len(core_parameters(layer))):
        with torch.no_grad():
            for parameter, value in zip(core_parameters(layer), values, strict=True):
                parameter.fill_(value)
        jacobians = torch.func.vmap(torch.func.jacrev(lambda z: layer(z.unsqueeze(0)).flatten()))(x).flatten(2)
        assert torch.linalg.svdvals(jacobians.detach()).max() <= layer.lipschitz_bound(3) <= 1


@KINDS
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_parameters_that_are_not_finite_have_no_bound(kind, bad):
    for name, _ in make_fresh_attention(kind, 4, 2).named_parameters():
        layer = make_fresh_attention(kind, 4, 2)
        with torch.no_grad():
            layer.get_parameter(name).view(-1)[-1] = bad
        if not name.endswith("bias"):  # a bias is no part of the bound
            assert layer.lipschitz_bound(4) == math.inf, name


@KINDS
def test_no_token_is_refused(kind):
    with pytest.raises(ValueError, match="at least one token"):
        make_fresh_attention(kind, 4, 2).lipschitz_bound(0)


@KINDS
def test_parameters_of_one_head_change_only_that_head(kind):
    layer, x = make_moved_attention(kind, 4, 2), maps(1, 4, 2, 2)
    for parameter in core_parameters(layer):
        with torch.no_grad():
            layer.output.weight.copy_(torch.eye(4))
            before = layer(x)
            parameter[1] += 1
            after = layer(x)
        assert torch.allclose(before[:, :2], after[:, :2])
        assert not torch.allclose(before[:, 2:], after[:, 2:])


def test_dot_attention_does_not_change_with_the_scale_of_the_input():
    layer = with_biases_zero(make_fresh_attention("dot", 4, 2))
    x = maps(1, 4, 2, 2)
    assert torch.allclose(layer(100 * x), 100 * layer(x), rtol=1e-10)


@BALLS
def test_sharpness_ranges_from_averaging_to_choosing_one_token(kind):
    layer = with_biases_zero(make_fresh_attention(kind, 2, 1))
    q = 100 * torch.eye(2, dtype=torch.float64)[None, None]
    v = 0.1 * q / 100
    with torch.no_grad():
        layer.sharpness.fill_(-12.0)
        flat = layer.core(q, q, v)
        layer.sharpness.fill_(12.0)
        sharp = layer.core(q, q, v)
    assert torch.allclose(flat[..., 0, :], flat[..., 1, :], rtol=1e-4)
    assert sharp[0, 0, 0, 0] > 5 * sharp[0, 0, 0, 1]
