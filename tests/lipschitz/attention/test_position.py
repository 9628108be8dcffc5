"""Doubly stochastic attention that knows where its tokens are: its bias, its bound, and what it learns by it."""

import math

import pytest
import torch
from torch import Tensor

import acf
from acf.errors import InputError
from acf.lipschitz import SinkhornSelfAttention
from acf.lipschitz.attention.position import LARGEST_BIAS, STARTS, relative_bias, starting_table
from acf.lipschitz.kernels.balance import LARGEST_LOGIT
from acf.settings.architecture_config import MAX_SHARPNESS, MAX_SHARPNESS_WITH_POSITION
from tests.building_blocks.noise import noise
from tests.building_blocks.weights import move_all_parameters
from tests.lipschitz.joint import largest_norm
from tests.lipschitz.loops import bias as bias_by_loops
from tests.lipschitz.loops import by_loops

SIZE = (2, 3)
EVERY_START = pytest.mark.parametrize("start", sorted(STARTS))


def positioned(
    start: str = "zero", channels: int = 4, heads: int = 2, size: tuple[int, int] = SIZE, sharpness: float = 2.0
) -> SinkhornSelfAttention:
    """In float64 and in evaluation mode."""
    torch.manual_seed(0)
    made = SinkhornSelfAttention(channels, heads, max_sharpness=sharpness, size=size, position_start=start)
    return made.double().eval()


def moved(size: tuple[int, int] = SIZE, distance: float = 2.0, **settings: float) -> SinkhornSelfAttention:
    """With large random biases."""
    layer = move_all_parameters(positioned(size=size, **settings))  # type: ignore[arg-type]
    with torch.no_grad():
        layer.position.add_(distance * torch.randn_like(layer.position))
    return layer


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 1), (2, 3)])
def test_the_bias_is_that_of_the_displacement_and_bounded(size):
    layer = moved(size, distance=10.0)
    bias = relative_bias(layer.position, size)
    n = math.prod(size)
    expected = [[[bias_by_loops(layer, h, i, j) for j in range(n)] for i in range(n)] for h in range(2)]
    assert torch.allclose(bias, torch.tensor(expected, dtype=torch.float64), rtol=1e-12)
    assert bias.abs().max() <= LARGEST_BIAS


@pytest.mark.parametrize("sharpness", [0.5, 2.0, 3.0])
def test_equals_loops_over_heads_and_tokens(sharpness):
    layer, x = moved(sharpness=sharpness), noise(3, 4, *SIZE, seed=1)
    assert torch.allclose(layer(x), by_loops("sinkhorn", layer, x), rtol=1e-9, atol=1e-10)


@EVERY_START
def test_starts_differ_from_head_to_head_and_leave_gradients(start):
    table = starting_table(start, 4, (3, 3))
    values = LARGEST_BIAS * torch.tanh(table / LARGEST_BIAS)
    assert values.abs().max() <= 2.0 + 1e-6
    if start == "zero":
        assert not table.any()
        return
    assert all(not torch.equal(table[a], table[b]) for a in range(4) for b in range(a))
    assert values.amax((1, 2)) == pytest.approx([2.0] * 4)
    places = [tuple(int(place) - 2 for place in divmod(int(head.argmax()), 5)) for head in table]
    assert places == {"local": [(0, 0)] * 4, "shifts": [(0, 1), (1, 0), (0, -1), (-1, 0)]}[start]


def test_a_bias_of_zero_is_no_bias():
    layer, x = positioned(), noise(3, 4, *SIZE)
    torch.manual_seed(0)
    plain = SinkhornSelfAttention(4, 2).double().eval()
    assert torch.allclose(layer(x), plain(x), rtol=1e-12, atol=1e-14)


def test_attention_knows_where_its_tokens_are():
    layer, x = moved(), noise(1, 4, *SIZE)

    def mirrored(t: Tensor) -> Tensor:
        return t.flip(-1)

    assert not torch.allclose(layer(mirrored(x)), mirrored(layer(x)), rtol=1e-2)


def test_derivatives_in_the_input_and_in_all_that_the_core_learns():
    layer = moved((1, 2), channels=2, heads=1)
    names = [name for name, _ in layer.named_parameters(recurse=False)]

    def f(x: Tensor, *parameters: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), x)

    learnt = [p.detach().clone().requires_grad_(True) for p in layer.parameters(recurse=False)]
    assert torch.autograd.gradcheck(f, (noise(1, 2, 1, 2).requires_grad_(True), *learnt), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(f, (noise(1, 2, 1, 2).requires_grad_(True), *learnt))


# Theorem 4c: the bound holds for every bias.


@pytest.mark.parametrize("n", [2, 4])
def test_a_contraction_for_random_biases(n):
    for seed in range(2):
        torch.manual_seed(seed)
        layer = moved((1, n), distance=4.0, channels=2, heads=1)
        assert 0.99 <= largest_norm(layer.core, noise(8, 3, n, 2, seed=seed), steps=25) <= 1 + 1e-9


def test_a_contraction_in_queries_and_keys_while_all_parameters_climb():
    layer = moved((1, 3), channels=2, heads=1, sharpness=3.0)
    learnt, before = list(layer.parameters(recurse=False)), layer.position.detach().clone()
    start = noise(6, 3, 3, 2, seed=3)
    assert 0.5 <= largest_norm(layer.core, start, (0, 1), 40, parameters=learnt) <= 1 + 1e-9
    assert not torch.equal(layer.position, before)


# What it learns.


def test_a_bias_of_zero_has_a_gradient():
    layer, x = positioned(), noise(16, 4, *SIZE)
    layer.train()
    (layer(x) * x.roll(1, -1)).sum().backward()
    assert (layer.position.grad.abs() > 1e-6).all()
    heads = layer.position.grad
    assert not torch.allclose(heads[0], heads[1], rtol=0.1)


def test_a_shift_is_learnt_by_position_alone():
    """Tokens of noise do not say where they are: only the bias can move values by a position. The bound holds then."""
    errors = {}
    for size in (None, (1, 4)):
        torch.manual_seed(0)
        layer = SinkhornSelfAttention(2, 1, size=size).train()
        optimiser = torch.optim.Adam(layer.parameters(), lr=0.2)
        for step in range(30):
            x = torch.randn(32, 2, 1, 4, generator=torch.Generator().manual_seed(step))
            error = (layer(x) - 0.5 * x.roll(1, -1)).square().mean()
            optimiser.zero_grad()
            error.backward()
            optimiser.step()
        errors[size] = error.item()
        assert largest_norm(layer.double().eval().core, noise(6, 3, 4, 2), steps=10) <= 1 + 1e-9
    assert errors[1, 4] < 0.5 * errors[None]


# Building, storing, refusing.


@pytest.mark.parametrize("join", ["block", "concatenate"])
def test_a_flow_with_position_is_proven_inverted_and_stored(join, tmp_path):
    torch.manual_seed(0)
    attention = {"kind": "sinkhorn", "heads": 2, "join": join, "position": "relative", "position_start": "local"}
    config = {"shape": (1, 4, 4), "levels": 17, "blocks": [1, 1], "idim": 8, "fc_blocks": 0, "attention": attention}
    flow = acf.build(config)
    (-flow.train().log_prob(torch.rand(8, 1, 4, 4)).mean()).backward()
    biases = {name: p for name, p in flow.named_parameters() if name.endswith("position")}
    assert [tuple(p.shape) for p in biases.values()] == [(2, 7, 7), (2, 3, 3)]
    assert all(p.grad.abs().max() > 0 for p in biases.values())
    with torch.no_grad():
        for p in biases.values():
            p.add_(torch.randn_like(p))
    acf.tighten(flow.eval())
    assert acf.certify(flow).worst < 1
    x = torch.rand(5, 1, 4, 4)
    assert (flow.inverse(flow.transform(x)) - x).abs().max() < 1e-4
    acf.save(flow, tmp_path)
    assert torch.equal(acf.load(tmp_path).transform(x), flow.transform(x))


def test_maps_of_another_size_are_refused():
    layer = positioned()
    for size in ((3, 2), (2, 2), (4, 3)):
        with pytest.raises(InputError, match=r"maps of 2 x 3, and was given one of \d x \d"):
            layer(noise(1, 4, *size))
        with pytest.raises(InputError):
            layer.value_and_vjp(noise(1, 4, *size), layer.effective_tensors(), torch.float64)


def test_logits_larger_than_can_be_balanced_are_refused():
    assert MAX_SHARPNESS == LARGEST_LOGIT
    assert MAX_SHARPNESS_WITH_POSITION == LARGEST_LOGIT - LARGEST_BIAS
    SinkhornSelfAttention(2, max_sharpness=MAX_SHARPNESS)
    SinkhornSelfAttention(2, max_sharpness=MAX_SHARPNESS_WITH_POSITION, size=SIZE)
    for sharpness, size in ((6.1, None), (3.1, SIZE), (0.0, None), (-1.0, SIZE)):
        with pytest.raises(ValueError, match="max_sharpness must be positive"):
            SinkhornSelfAttention(2, max_sharpness=sharpness, size=size)
