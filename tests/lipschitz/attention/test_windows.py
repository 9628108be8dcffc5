"""Attention within windows: each is a set of tokens of its own, for every form of attention."""

import pytest
import torch

from acf.lipschitz import l2_attention_constant
from acf.lipschitz.attention.self_attention import SelfAttention, merge_heads, to_maps, to_tokens
from acf.registry import ATTENTIONS
from tests.building_blocks.noise import noise
from tests.building_blocks.weights import move_all_parameters
from tests.lipschitz.attention.fresh import make_fresh_attention

KINDS = pytest.mark.parametrize("kind", sorted(ATTENTIONS))


def windowed(kind: str, window: int | None) -> SelfAttention:
    layer = move_all_parameters(make_fresh_attention(kind, 4, 2))
    layer.window = window
    return layer


@pytest.mark.parametrize(("size", "window"), [((4, 6), (2, 3)), ((4, 4), (4, 1)), ((2, 2), (2, 2)), ((1, 6), (1, 2))])
def test_tokens_of_windows_are_counted_row_by_row_and_go_back(size, window):
    x = noise(3, 2, *size)
    tokens = to_tokens(x, window)
    height, width = window
    cut = [
        sample[:, top : top + height, left : left + width].flatten(1).T
        for sample in x
        for top in range(0, size[0], height)
        for left in range(0, size[1], width)
    ]
    assert torch.equal(tokens, torch.stack(cut))
    assert torch.equal(to_maps(tokens, x.shape, window), x)


@KINDS
def test_each_window_is_mapped_by_itself(kind):
    layer, x = windowed(kind, 2), noise(3, 4, 4, 6)
    whole = windowed(kind, None)
    y = layer(x)
    for top in range(0, 4, 2):
        for left in range(0, 6, 2):
            place = (..., slice(top, top + 2), slice(left, left + 2))
            assert torch.allclose(y[place], whole(x[place]), rtol=1e-10, atol=1e-13)
    assert not torch.allclose(y, whole(x))
    assert layer.lipschitz_bound(24) == whole.lipschitz_bound(4) <= 1


@KINDS
def test_maps_shorter_than_a_window_are_whole(kind):
    x = noise(2, 4, 2, 6)
    assert torch.allclose(windowed(kind, 3)(x), torch.cat([windowed(kind, None)(part) for part in x.split(3, -1)], -1))
    assert torch.equal(windowed(kind, 8)(x), windowed(kind, None)(x))


@KINDS
@torch.no_grad()
def test_weights_between_windows_are_zero(kind):
    layer, x = windowed(kind, 2), noise(3, 4, 4, 4)
    weights, values = layer.weights_and_values_of(x)
    mixed = to_maps(layer.output(merge_heads(weights @ values)), x.shape)
    assert torch.allclose(mixed, layer(x), rtol=1e-12, atol=1e-14)
    row, column = (torch.arange(4) // 2).repeat_interleave(4), (torch.arange(4) // 2).repeat(4)
    together = (row[:, None] == row) & (column[:, None] == column)
    assert torch.equal(weights > 0, together.expand_as(weights))
    (some, some_values) = layer.weights_and_values_of(x, slice(1, 2))
    assert torch.allclose(some, weights[:, 1:], rtol=1e-12)
    assert torch.allclose(some_values, values[:, 1:], rtol=1e-12)
    assert layer.weights_and_values_of(x[:0])[0].shape == (0, 2, 16, 16)


def test_l2_attention_in_windows_is_divided_by_the_constant_of_few_tokens():
    x = noise(1, 4, 1, 1).expand(1, 4, 8, 8)  # equal tokens: every mean is the token itself
    in_windows, whole = (
        layer(x) - layer.output.bias[:, None, None] for layer in (windowed("l2", 2), windowed("l2", None))
    )
    assert torch.allclose(in_windows / whole, x.new_tensor(l2_attention_constant(64) / l2_attention_constant(4)))


def test_intermediate_values_are_those_of_windows():
    layer = windowed("sinkhorn", 2)
    assert layer.intermediate_values(64) == 2 * 64 * 6
    assert windowed("sinkhorn", None).intermediate_values(64) == 2 * 64 * 64
    assert windowed("sinkhorn", 16).intermediate_values(64) == 2 * 64 * 64


def test_maps_that_cannot_be_cut_are_refused():
    with pytest.raises(ValueError, match="windows of 3 x 3 do not divide maps of 4 x 6"):
        windowed("sinkhorn", 3)(noise(1, 4, 4, 6))
