"""Torch's default device and type are not those of the flow.

On the meta device tensors have no values, so a result that comes out equal was computed without it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

import acf
from acf.lipschitz.bounds.attack import largest_gain
from tests.building_blocks.bijections import BIJECTIONS, make_flow
from tests.building_blocks.layers import LAYERS
from tests.building_blocks.settings import with_attention

SHAPE = (1, 4, 4)
X = torch.rand(5, *SHAPE)
Z = torch.randn(3, 16)
LEVELS = (X * 256).byte()


@contextmanager
def float64_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


OTHERS: dict[str, Callable[[], object]] = {"device": lambda: torch.device("meta"), "dtype": float64_by_default}


def train(flow: acf.Flow) -> Tensor:
    optimiser = torch.optim.SGD(flow.parameters(), 1e-2)
    for _ in range(2):
        loss = -flow.train().log_prob(X).mean()
        loss.backward()
        optimiser.step()
        flow.renormalise()
    return loss.detach()


def attack(flow: acf.Flow) -> float:
    block = next(iter(flow.contractive_blocks().values()))
    return largest_gain(block.branch, block.shape, steps=1, rounds=0, candidates=2, exact_inputs=0).gain


OPERATIONS: dict[str, Callable[[acf.Flow], object]] = {
    "training": train,
    "log_prob": lambda flow: flow.eval().log_prob(X).detach(),
    "inverse": lambda flow: flow.eval().inverse(Z),
    "sample": lambda flow: flow.eval().sample(3),
    "sample, seeded": lambda flow: flow.eval().sample(3, generator=torch.Generator("cpu").manual_seed(0)),
    "bits_per_dim": lambda flow: acf.bits_per_dim(flow, LEVELS).detach(),
    "bits_per_dim, seeded": lambda flow: acf.bits_per_dim(flow, LEVELS, torch.Generator("cpu").manual_seed(0)).detach(),
    "tighten": lambda flow: acf.tighten(flow).worst,
    "attack": attack,
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_compute_where_the_flow_is_and_draw_the_same_numbers(name: str, other: str) -> None:
    results = []
    for context in (lambda: torch.device("cpu"), OTHERS[other]):
        torch.manual_seed(0)
        settings = {"evaluation_log_det": {"exact_terms": 4, "probes": 3}}
        flow = make_flow(SHAPE, (2,), squeeze_first=True, **settings, **with_attention("sinkhorn"))
        with context():  # type: ignore[attr-defined]
            results.append([OPERATIONS[name](flow), *flow.state_dict().values()])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b) if isinstance(a, Tensor) else a == b


@pytest.mark.parametrize("name", BIJECTIONS)
def test_bijections_compute_where_they_are(name: str) -> None:
    bijection, x = BIJECTIONS[name].build(), BIJECTIONS[name].inputs(2)
    results = []
    for device in ("cpu", "meta"):
        torch.manual_seed(0)
        with torch.device(device):
            y, log_abs_det = bijection(x)
            results.append((y, log_abs_det, bijection.inverse(y.detach())))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("name", LAYERS)
def test_layers_compute_where_they_are(name: str) -> None:
    layer, x = LAYERS[name].build().train(), torch.randn(2, *LAYERS[name].shape, dtype=torch.float64)
    layer(x)
    results = []
    for device in ("cpu", "meta"):
        with torch.device(device):
            tensors = layer.effective_tensors()
            with torch.no_grad():
                value, vjp = layer.value_and_vjp(x.clone(), tensors, x.dtype)
                product = vjp(value.clone())
                jvp, _ = layer.jvp_and_pullback(torch.cat([x, x]), tensors)
            results.append((layer(x), value, product, jvp, layer.lipschitz_bound(6)))
    assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("other", OTHERS)
def test_a_stored_flow_is_loaded_as_it_was(tmp_path: Path, other: str) -> None:
    flow = make_flow(SHAPE)
    acf.save(flow, tmp_path)
    with OTHERS[other]():  # type: ignore[attr-defined]
        loaded = acf.load(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(flow.state_dict().values(), loaded.state_dict().values(), strict=True))


def test_a_flow_built_without_values_takes_those_of_another() -> None:
    flow = make_flow(SHAPE, **with_attention("l2")).eval()
    with torch.device("meta"):
        empty = make_flow(SHAPE, **with_attention("l2"))
    assert all(tensor.is_meta for tensor in empty.state_dict().values())
    filled = empty.to_empty(device="cpu").eval()
    filled.load_state_dict(flow.state_dict())
    assert torch.equal(filled.transform(X), flow.transform(X))
