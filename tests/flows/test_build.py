"""From settings to a flow: where attention stands, and settings that cannot be built."""

import math

import pytest
import torch

import acf
from acf.errors import ConfigError
from acf.flows.residual import ResidualBlock
from acf.lipschitz.attention.self_attention import SelfAttention
from acf.registry import ATTENTIONS, BRANCHES, JOINS
from tests.building_blocks.bijections import make_flow
from tests.building_blocks.settings import with_attention

SHAPE = (1, 4, 4)


def attends(block: ResidualBlock) -> bool:
    return any(isinstance(m, SelfAttention) for m in block.modules())


def places(made: acf.Flow) -> list[str]:
    return [name for name, block in made.contractive_blocks().items() if attends(block)]


@pytest.mark.parametrize("join", sorted(JOINS))
@pytest.mark.parametrize(
    ("every", "expected"),
    [
        (1, ["1, block 1", "1, block 2", "1, block 3", "2, block 1", "2, block 2"]),
        (2, ["1, block 2", "2, block 2"]),
        (3, ["1, block 3"]),
    ],
)
def test_attention_in_every_nth_block_of_a_scale(join, every, expected):
    made = make_flow(SHAPE, blocks=(3, 2), **with_attention("sinkhorn", join=join, every=every))
    assert places(made) == [f"scale {place}" for place in expected]
    assert len(made.contractive_blocks()) == 3 + 2 + 1  # and one fully connected block at the end, which never attends


@pytest.mark.parametrize(
    ("every", "first", "second"),
    [(1, [2, 4, 6], [2, 4]), (2, [3], [3]), (3, [4], [])],
)
def test_attention_in_blocks_of_its_own_follows_every_nth_block(every, first, second):
    made = make_flow(SHAPE, blocks=(3, 2), **with_attention("sinkhorn", join="block", every=every))
    expected = [f"scale {s}, block {b}" for s, blocks in ((1, first), (2, second)) for b in blocks]
    assert places(made) == expected
    assert len(made.contractive_blocks()) == 3 + 2 + 1 + len(expected)
    for name in expected:
        (layer,) = made.contractive_blocks()[name].branch
        assert isinstance(layer, SelfAttention)


def test_no_attention_on_maps_with_too_many_positions():
    settings = {"blocks": (1, 1), "fc_blocks": 0}
    assert places(make_flow(SHAPE, **settings, **with_attention("sinkhorn", max_tokens=16))) == [
        "scale 1, block 1",
        "scale 2, block 1",
    ]
    assert places(make_flow(SHAPE, **settings, **with_attention("sinkhorn", max_tokens=15))) == ["scale 2, block 1"]
    with pytest.raises(ConfigError, match=r"attention\.max_tokens \(3\) leave no attention .* on maps of 4 x 4, 2 x 2"):
        make_flow(SHAPE, **settings, **with_attention("sinkhorn", max_tokens=3))


@pytest.mark.parametrize(("join", "first", "second"), [("convex", 3, 2), ("block", 4, 3)])
def test_attention_once_per_scale_is_at_the_last_block_whatever_their_number(join, first, second):
    for every in (1, 5):
        settings = with_attention("sinkhorn", join=join, every=every, once_per_scale=True)
        assert places(make_flow(SHAPE, blocks=(3, 2), **settings)) == [
            f"scale 1, block {first}",
            f"scale 2, block {second}",
        ]
    settings = with_attention("sinkhorn", join=join, once_per_scale=True, max_tokens=4)
    assert places(make_flow(SHAPE, blocks=(3, 2), **settings)) == [f"scale 2, block {second}"]


def test_no_attention_unless_asked_for():
    made = make_flow(SHAPE, blocks=(2, 1), **with_attention("none", join="block"))
    assert places(made) == []
    assert len(made.contractive_blocks()) == 4


@pytest.mark.parametrize("branch", sorted(BRANCHES))
@pytest.mark.parametrize("join", [*sorted(JOINS), "block"])
def test_flows_are_proven_when_built_and_every_parameter_is_learnt(branch, join):
    torch.manual_seed(0)
    settings = {"branch": branch, "dense": {"depth": 2, "growth": 4}, "blocks": (2,)}
    made = make_flow(SHAPE, **settings, **with_attention("sinkhorn", join=join)).double().train()  # type: ignore[arg-type]
    assert acf.certify(made).worst < 1
    x = torch.rand(3, *SHAPE, dtype=torch.float64)
    loss = -made.log_prob(x).mean()
    assert loss.isfinite()
    loss.backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad.isfinite().all(), name
    for name, module in made.named_modules():
        if isinstance(module, SelfAttention):
            assert all(p.grad.abs().max() > 0 for p in module.parameters()), name
    with torch.no_grad():
        made.eval()
        assert (made.inverse(made.transform(x)) - x).abs().max() < 1e-4


@pytest.mark.parametrize("kind", sorted(ATTENTIONS))
def test_a_built_flow_has_the_attention_of_its_configuration(kind):
    made = make_flow(SHAPE, **with_attention(kind, 3))
    assert made.config.attention.kind == kind
    assert all(m.heads == 3 for m in made.modules() if isinstance(m, SelfAttention))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"attention": {"kind": "l2", "join": "sum"}},
            r"attention\.join: unknown way of joining 'sum'; known: .*block",
        ),
        ({"attention": {"kind": "l3"}}, r"attention\.kind: unknown attention 'l3'; known: .*sinkhorn"),
        ({"attention": {"kind": "l2", "every": 0}}, r"attention\.every"),
        (
            {"attention": {"kind": "l2", "every": 4}, "blocks": [3, 2]},
            r"attention\.every \(4\) and .* leave no attention in blocks",
        ),
        ({"attention": {"kind": "l2", "share": 1.0}}, r"attention\.share"),
        ({"attention": {"kind": "l2", "share": math.nan}}, r"attention\.share"),
        ({"attention": {"kind": "l2", "heads": 0}}, r"attention\.heads"),
        ({"attention": {"kind": "l2", "head": 2}}, r"attention\.head: unknown key"),
        (
            {"attention": {"kind": "l2", "position": "relative"}},
            r"attention: position relative .* l2 has no proven bound .* use sinkhorn, or set position to none",
        ),
        ({"attention": {"kind": "clip", "position": "relative"}}, r"clip has no proven bound"),
        ({"attention": {"kind": "dot", "position": "relative"}}, r"dot has no proven bound"),
        ({"attention": {"kind": "sinkhorn", "position": "absolute"}}, r"attention\.position: .*'relative'"),
        ({"attention": {"kind": "sinkhorn", "position_start": "far"}}, r"attention\.position_start: .*'shifts'"),
        ({"attention": {"kind": "sinkhorn", "max_sharpness": 6.5}}, r"attention\.max_sharpness"),
        (
            {"attention": {"kind": "sinkhorn", "max_sharpness": 3.5, "position": "relative"}},
            r"max_sharpness is at most 3 with position relative \(got 3\.5\)",
        ),
        (
            {"attention": {"kind": "sinkhorn", "window": 3}},
            r"attention\.window \(3\) does not divide maps of 4 x 4; choose a divisor .* attention\.max_tokens",
        ),
        ({"attention": {"kind": "sinkhorn", "window": 0}}, r"attention\.window"),
        ({"branch": "dens"}, r"branch: unknown branch 'dens'; known: conv, dense, potential"),
        ({"activation": "relu"}, r"activation: unknown activation 'relu'; known: .*clipswish"),
        ({"dense": {"depth": 0}}, r"dense\.depth"),
        ({"dense": {"growt": 4}}, r"dense\.growt: unknown key"),
        (
            {"branch": "dense", "activation": "clipswish", "dense": {"growth": 5}},
            r"dense\.growth \(5\) must be a multiple of 2",
        ),
        (
            {"branch": "potential", "kernels": [3, 3]},
            r"kernels \(\[3, 3\]\) must have at least three entries where branch is potential",
        ),
    ],
)
def test_settings_that_cannot_be_built_name_their_key(settings, words):
    with pytest.raises(ConfigError, match=words):
        make_flow(SHAPE, **settings)
