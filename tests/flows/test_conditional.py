"""Conditional flows p(x | c), c a label or a vector."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import acf
from acf.flows.conditional import ConditionalAffine
from tests.building_blocks.bijections import make_flow, make_moved_flow
from tests.building_blocks.settings import with_attention

EXACT = {"training_log_det": {"estimator": "exact"}, "evaluation_log_det": {"estimator": "exact"}}
KINDS: dict[str, dict[str, Any]] = {
    "vectors, labels": {"shape": (2,), "condition": {"classes": 3}},
    "vectors, vectors": {"shape": (3,), "condition": {"size": 4, "width": 8}},
    "images, labels": {"shape": (1, 2, 4), "condition": {"classes": 3}, **with_attention("sinkhorn")},
    "images, vectors": {"shape": (1, 2, 2), "condition": {"size": 2}},
}


def moved(kind: str) -> acf.Flow:
    return make_moved_flow(**KINDS[kind], **EXACT)


def conditions(flow: acf.Flow, batch: int) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    kind = flow.config.condition
    if kind.classes:
        return torch.randint(kind.classes, (batch,), generator=draw)
    return torch.randn(batch, kind.size or 0, generator=draw, dtype=torch.float64)


def inputs(flow: acf.Flow, batch: int) -> Tensor:
    return torch.rand(batch, *flow.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_the_log_determinant_is_that_of_the_map_of_x_for_each_condition(kind: str) -> None:
    flow = moved(kind)
    x, c = inputs(flow, 5), conditions(flow, 5)
    for one, of_one in zip(x, c, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda t: flow.transform(t[None], of_one[None])[0], one)  # noqa: B023
        expected = torch.linalg.slogdet(jacobian.flatten(1)).logabsdet
        assert torch.allclose(flow(one[None], of_one[None])[1], expected, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_inverse_and_density_use_the_condition_of_each_sample(kind: str) -> None:
    flow = moved(kind)
    x, c = inputs(flow, 6), conditions(flow, 6)
    z, _ = flow(x, c)
    assert torch.allclose(flow.transform(x, c), z)
    assert (flow.inverse(z, condition=c) - x).abs().max() < 1e-8
    assert (flow.inverse(z, condition=c.roll(1, 0)) - x).abs().max() > 1e-3
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    assert torch.allclose(flow.log_prob(x[order], c[order]), flow.log_prob(x, c)[order], atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_one_row_stands_for_all_samples(kind: str) -> None:
    flow = moved(kind)
    x, c = inputs(flow, 4), conditions(flow, 1)
    assert torch.equal(flow.log_prob(x, c), flow.log_prob(x, torch.cat([c] * 4)))
    draws = [flow.sample(3, generator=torch.Generator().manual_seed(0), condition=k) for k in (c, torch.cat([c] * 3))]
    assert torch.equal(*draws)


@pytest.mark.parametrize("kind", KINDS)
def test_the_certificate_is_that_of_branches_which_do_not_see_the_condition(kind: str) -> None:
    flow = moved(kind)
    before = acf.certify(flow).worst
    with torch.no_grad():
        for module in flow.modules():
            if isinstance(module, ConditionalAffine):
                module.linear.weight.mul_(100)
    assert acf.certify(flow).worst == before < 1
    x, c = inputs(flow, 3), conditions(flow, 3)
    again = flow.inverse(flow.transform(x, c), condition=c)
    assert (again - x).abs().max() < 1e-5


def test_a_fresh_flow_does_not_depend_on_the_condition_and_learns_to() -> None:
    torch.manual_seed(0)
    flow = make_flow((2,), condition={"classes": 2}, **EXACT)
    c = torch.arange(200) % 2
    x = torch.randn(200, 2) + 4 * c[:, None]
    flow.train()
    with torch.no_grad():
        flow(x, c)
        assert torch.equal(flow.log_prob(x[:5], c[:5]), flow.log_prob(x[:5], 1 - c[:5]))
    optimiser = torch.optim.Adam(flow.parameters(), lr=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        (-flow.log_prob(x, c).mean()).backward()
        optimiser.step()
        flow.renormalise()
    flow.eval()
    acf.tighten(flow)
    with torch.no_grad():
        right, wrong = flow.log_prob(x, c).mean(), flow.log_prob(x, 1 - c).mean()
    assert right > wrong + 2
    for label in (0, 1):
        middle = flow.sample(400, condition=torch.tensor([label])).median(0).values
        assert (middle - 4 * label).abs().max() < 0.8


def test_gradients_reach_the_condition_and_are_those_of_differences() -> None:
    flow, x = moved("vectors, vectors"), inputs(moved("vectors, vectors"), 2)
    c = conditions(flow, 2).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda k: flow.log_prob(x, k), c, atol=1e-6)
    z = flow.transform(x, c).detach()
    assert torch.autograd.gradcheck(lambda k: flow.inverse(z, differentiable=True, condition=k), c, atol=1e-5)


def test_it_is_stored_and_copied_with_its_condition(tmp_path: object) -> None:
    flow = moved("vectors, labels")
    acf.save(flow, f"{tmp_path}")
    x, c = inputs(flow, 4), conditions(flow, 4)
    for other in (acf.load(f"{tmp_path}"), copy.deepcopy(flow)):
        assert torch.equal(other.log_prob(x, c), flow.log_prob(x, c))


LABELS, VECTORS = "vectors, labels", "vectors, vectors"
BAD: dict[str, tuple[str, Tensor | None, str]] = {
    "none": (LABELS, None, "pass condition="),
    "no whole numbers": (LABELS, torch.zeros(4), "whole numbers below 3"),
    "unknown label": (LABELS, torch.tensor([0, 1, 2, 3]), "labels from 0 to 2"),
    "negative label": (LABELS, torch.tensor([0, 1, 2, -1]), "labels from 0 to 2"),
    "one hot": (LABELS, torch.zeros(4, 3, dtype=torch.long), "expected a condition of shape"),
    "too few": (LABELS, torch.zeros(3, dtype=torch.long), "3 conditions for a batch of 4"),
    "size": (VECTORS, torch.zeros(4, 3, dtype=torch.float64), "expected a condition of shape"),
    "type": (VECTORS, torch.zeros(4, 4), "float32 and the flow"),
    "nan": (VECTORS, torch.full((4, 4), math.nan, dtype=torch.float64), "finite values"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_condition_is_refused_before_any_layer_sees_the_batch(name: str) -> None:
    kind, condition, words = BAD[name]
    flow = moved(kind).train()
    before = {key: value.clone() for key, value in flow.state_dict().items()}
    x = inputs(flow, 4)
    calls = [flow, flow.log_prob, flow.transform, lambda z, k: flow.inverse(z, condition=k)]
    for call in calls:
        with pytest.raises(ValueError, match=words):
            call(x, condition)
    assert all(torch.equal(value, before[key]) for key, value in flow.state_dict().items())


def test_a_condition_is_refused_where_the_density_depends_on_none() -> None:
    with pytest.raises(ValueError, match="depends on none"):
        make_moved_flow((2,)).log_prob(torch.zeros(3, 2, dtype=torch.float64), torch.zeros(3, dtype=torch.long))


def test_labels_and_vectors_at_once_are_refused() -> None:
    with pytest.raises(acf.errors.ConfigError, match="not both"):
        make_flow((2,), condition={"classes": 3, "size": 2})
