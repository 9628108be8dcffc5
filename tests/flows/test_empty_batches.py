"""Batches without samples: shapes (0, ...) everywhere, gradients of zero, nothing initialised."""

import itertools

import pytest
import torch

import acf
from tests.building_blocks.bijections import BIJECTIONS, make_flow
from tests.building_blocks.settings import with_attention

PATHS = list(itertools.product([True, False], repeat=2))


@pytest.mark.parametrize("name", BIJECTIONS)
def test_every_bijection_maps_no_samples_to_none(name: str) -> None:
    case = BIJECTIONS[name]
    made = case.build()
    for training in (False, True):
        made.train(training)
        x = torch.zeros(0, *case.shape, dtype=torch.float64, requires_grad=True)
        y, log_abs_det = made(x)
        assert log_abs_det.shape == (0,)
        assert made.transform(x).shape == y.shape
        (y.sum() + log_abs_det.sum()).backward()
        assert x.grad is not None
        assert x.grad.shape == x.shape
        with torch.no_grad():
            assert made(x)[0].shape == y.shape == (0, *case.outputs(1).shape[1:])
            assert made.inverse(y).shape == x.shape


@pytest.mark.parametrize(("memory_efficient", "neumann_gradient"), PATHS)
@pytest.mark.parametrize("kind", ["none", "l2", "sinkhorn"])
def test_an_empty_first_batch_of_training(kind: str, memory_efficient: bool, neumann_gradient: bool) -> None:
    config = {"memory_efficient": memory_efficient, "neumann_gradient": neumann_gradient}
    flow = make_flow((1, 4, 4), squeeze_first=True, training_log_det=config, **with_attention(kind)).train()
    before = {key: value.clone() for key, value in flow.state_dict().items()}
    x = torch.rand(6, 1, 4, 4)
    flow.log_prob(x[:0]).sum().backward()
    assert all(torch.equal(value, before[key]) for key, value in flow.state_dict().items())
    assert all(p.grad is None or not p.grad.any() for p in flow.parameters())
    flow.log_prob(x).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in flow.parameters())
    assert all(part.initialised for part in flow.modules() if hasattr(part, "initialised"))


def test_what_else_a_flow_does_with_no_images() -> None:
    flow = make_flow((3, 4, 4), (1, 1), squeeze_first=True, factor_out=True, fc_blocks=0).eval()
    assert flow.sample(0).shape == (0, 3, 4, 4)
    assert flow.invert(torch.zeros(0, 48)).x.shape == (0, 3, 4, 4)
    assert acf.bits_per_dim(flow, torch.zeros(0, 3, 4, 4, dtype=torch.uint8)).shape == (0,)
