"""Autocast around a flow changes nothing; half precision and mixed types are refused in words."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

import acf
from acf.flows.actnorm import ActNorm
from tests.building_blocks.bijections import BIJECTIONS, make_flow
from tests.building_blocks.blocks import BLOCK_KINDS
from tests.building_blocks.layers import LAYERS
from tests.building_blocks.settings import with_attention

SHAPE = (1, 4, 4)
X = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0))


def made(kind: str = "none", **settings: object) -> acf.Flow:
    torch.manual_seed(0)
    return make_flow(SHAPE, (2,), **with_attention(kind), **settings)


@contextmanager
def reduced() -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield


def outcome(operation: Callable[[acf.Flow], object], flow: acf.Flow) -> list[object]:
    torch.manual_seed(1)
    result = operation(flow)
    return [result, *flow.state_dict().values()]


def train(flow: acf.Flow) -> Tensor:
    for _ in range(2):
        loss = -flow.train().log_prob(X).mean()
        with torch.autocast("cpu", enabled=False):
            loss.backward()
        torch.optim.SGD(flow.parameters(), 1e-2).step()
        flow.renormalise()
    return loss.detach()


OPERATIONS: dict[str, Callable[[acf.Flow], object]] = {
    "log_prob": lambda flow: flow.eval().log_prob(X).detach(),
    "transform": lambda flow: flow.eval().transform(X).detach(),
    "inverse": lambda flow: flow.eval().inverse(torch.randn(3, 16)),
    "sample": lambda flow: flow.eval().sample(3),
    "certify": lambda flow: acf.certify(flow).worst,
    "tighten": lambda flow: acf.tighten(flow).worst,
    "bits_per_dim": lambda flow: acf.bits_per_dim(flow, (X * 256).byte()).detach(),
    "training": train,
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("kind", ["none", "l2", "sinkhorn"])
def test_autocast_around_an_operation_changes_nothing(name: str, kind: str) -> None:
    expected = outcome(OPERATIONS[name], made(kind))
    with reduced():
        found = outcome(OPERATIONS[name], made(kind))
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b


@pytest.mark.parametrize("name", LAYERS)
def test_autocast_around_a_layer_changes_nothing(name: str) -> None:
    layer = LAYERS[name].build().float()
    x = torch.randn(3, *LAYERS[name].shape)
    expected = layer(x)
    with reduced():
        assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("name", [name for name in BIJECTIONS if not name.startswith("flow")])
def test_autocast_around_a_bijection_changes_nothing(name: str) -> None:
    bijection, x = BIJECTIONS[name].build().float(), BIJECTIONS[name].inputs(3).float()
    results = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            y, log_abs_det = bijection(x)
            results.append((y, log_abs_det, bijection.transform(x), bijection.inverse(y)))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("kind", BLOCK_KINDS)
def test_a_backward_pass_under_autocast_is_refused(kind: str) -> None:
    if kind == "fc":
        pytest.skip("a branch of blocks that every flow here has at its end")
    flow = make_flow(SHAPE, **BLOCK_KINDS[kind]).train()
    loss = flow.log_prob(X).sum()
    with reduced(), pytest.raises(ValueError, match="call it outside"):
        loss.backward()
    flow.log_prob(X).sum().backward()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_refused_in_words(dtype: torch.dtype) -> None:
    flow, name = made("l2").to(dtype), str(dtype).removeprefix("torch.")
    calls: list[Callable[[], object]] = [
        lambda: flow.log_prob(X),
        lambda: flow.log_prob(X.to(dtype)),
        lambda: flow.train().transform(X.to(dtype)),
        lambda: flow.sample(2),
        lambda: flow.inverse(torch.zeros(1, 16, dtype=dtype)),
        lambda: acf.bits_per_dim(flow, torch.zeros(1, *SHAPE, dtype=torch.uint8)),
        lambda: acf.certify(flow),
        lambda: acf.tighten(flow),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=rf"weights of this flow are {name}.*\.float\(\)"):
            call()
    assert flow.float().log_prob(X).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_inputs_of_another_type_are_refused_in_words(dtype: torch.dtype) -> None:
    flow, name = made(), str(dtype).removeprefix("torch.")
    for call in (flow.log_prob, flow.transform):
        with pytest.raises(ValueError, match=f"computes in float32 but was given {name}"):
            call(X.to(dtype))
    with pytest.raises(ValueError, match=f"computes in float32 but was given {name}"):
        flow.inverse(torch.zeros(1, 16, dtype=dtype))
    modules: list[tuple[nn.Module, Tensor]] = [
        (acf.lipschitz.NormalisedLinear(3, 2), torch.zeros(2, 3)),
        (acf.lipschitz.NormalisedConv2d(1, 2, 3, (4, 4)), X),
        (acf.lipschitz.SinkhornSelfAttention(2), torch.zeros(1, 2, 2, 2)),
        (ActNorm(SHAPE), X),
        (next(iter(flow.contractive_blocks().values())), X),
    ]
    for module, x in modules:
        with pytest.raises(ValueError, match=f"computes in float32( or float64)? but was given {name}"):
            module(x.to(dtype))
