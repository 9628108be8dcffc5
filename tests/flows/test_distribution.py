"""A flow as a `torch.distributions.Distribution` and as a transform."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import AffineTransform, Independent, TransformedDistribution, kl_divergence

import acf
from acf.errors import InputError
from acf.flows.distribution import FlowTransform
from tests.building_blocks.bijections import make_moved_flow

EXACT = {"training_log_det": {"estimator": "exact"}, "evaluation_log_det": {"estimator": "exact"}}
KINDS: dict[str, dict[str, Any]] = {
    "vectors": {"shape": (2,)},
    "images": {"shape": (1, 1, 2)},
    "labels": {"shape": (2,), "condition": {"classes": 3}},
    "conditions": {"shape": (1, 1, 2), "condition": {"size": 4}},
}
CONDITION = {"labels": torch.tensor([2, 0, 1]), "conditions": torch.linspace(-1, 1, 12, dtype=torch.float64).view(3, 4)}


def moved(kind: str) -> acf.Flow:
    return make_moved_flow(**KINDS[kind], **EXACT)


def condition(kind: str) -> Tensor | None:
    return CONDITION.get(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_shapes_of_torch_and_the_density_of_the_flow(kind: str) -> None:
    flow, c = moved(kind), condition(kind)
    density = flow.distribution(c)
    batch = () if c is None else (3,)
    assert (density.batch_shape, density.event_shape, density.has_rsample) == (batch, flow.shape, True)
    x = density.sample((5, 4))
    assert x.shape == (5, 4, *batch, *flow.shape)
    assert not x.requires_grad
    assert density.support.check(x).all()
    found = density.log_prob(x)
    assert found.shape == (5, 4, *batch)
    rows = None if c is None else c.expand(5, 4, *c.shape).flatten(0, 2)
    expected = flow.log_prob(x.reshape(-1, *flow.shape), rows)
    assert torch.allclose(found.flatten(), expected, atol=1e-12, rtol=0)
    # Conditions differ, so that a mistake in their order would be seen.
    assert c is None or (found - density.log_prob(x.roll(1, 2))).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["vectors", "labels"])
def test_the_density_integrates_to_one(kind: str) -> None:
    """Monte-Carlo integral with Student noise as the proposal; its own standard error decides."""
    flow = moved(kind)
    density = flow.distribution(None if kind == "vectors" else torch.tensor(1))
    with torch.no_grad():
        width = density.sample((200,)).std(0) * 1.5
        proposal = Independent(torch.distributions.StudentT(4.0, density.sample((200,)).mean(0), width), 1)
        x = proposal.sample((20000,))
        ratios = (density.log_prob(x) - proposal.log_prob(x)).exp()
    error = float(ratios.std()) / math.sqrt(len(ratios))
    assert error < 0.02
    assert abs(float(ratios.mean()) - 1) < 4 * error


@pytest.mark.parametrize("kind", KINDS)
def test_rsample_has_the_gradient_of_finite_differences(kind: str) -> None:
    flow = moved(kind)

    def total() -> Tensor:
        torch.manual_seed(3)
        return flow.distribution(condition(kind)).rsample((2,)).sin().sum()

    weight = max((p for p in flow.parameters()), key=lambda p: p.numel())
    direction = torch.randn(weight.shape, dtype=weight.dtype)
    (gradient,) = torch.autograd.grad(total(), weight)
    step, values = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(sign * step * direction)
            values.append(float(total()))
            weight.sub_(sign * step * direction)
    expected = (values[0] - values[1]) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_samples_are_those_of_the_flow_at_the_same_noise() -> None:
    flow = moved("vectors")
    torch.manual_seed(0)
    expected = flow.sample(6)
    torch.manual_seed(0)
    assert torch.equal(flow.distribution().sample((6,)), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_expand_repeats_the_density(kind: str) -> None:
    flow, c = moved(kind), condition(kind)
    density = flow.distribution(c)
    batch = (2, *density.batch_shape)
    wide = density.expand(batch)
    assert wide.batch_shape == batch
    x = wide.sample((4,))
    assert x.shape == (4, *batch, *flow.shape)
    assert torch.allclose(wide.log_prob(x), density.log_prob(x), atol=1e-12)
    assert wide.log_prob(x[0, 0]).shape == batch  # as torch's: values broadcast with the batch shape


def test_it_works_inside_independent_and_transformed_distributions() -> None:
    flow = moved("labels")
    density = flow.distribution(CONDITION["labels"])
    joint = Independent(density, 1)
    x = joint.rsample((4,))
    assert torch.allclose(joint.log_prob(x), density.log_prob(x).sum(-1))
    scaled = TransformedDistribution(density, [AffineTransform(1.0, 255.0, event_dim=1)])
    expected = density.log_prob(x) - 2 * math.log(255.0)
    assert torch.allclose(scaled.log_prob(1 + 255 * x), expected, atol=1e-8)
    with pytest.raises(NotImplementedError):
        kl_divergence(density, density)


@pytest.mark.parametrize("kind", KINDS)
def test_the_transform_makes_the_same_density(kind: str) -> None:
    flow, c = moved(kind), condition(kind)
    one = None if c is None else c[1]
    density, transform = flow.distribution(one), FlowTransform(flow, one)
    assert density.batch_shape == ()
    made = TransformedDistribution(density.base, [transform.inv])
    assert made.event_shape == flow.shape
    x = density.sample((5,))
    assert torch.allclose(made.log_prob(x), density.log_prob(x), atol=1e-8)
    assert (transform.inv(transform(x)) - x).abs().max() < 1e-8
    assert made.rsample((2, 3)).shape == (2, 3, *flow.shape)
    assert transform.forward_shape((7, *flow.shape)) == (7, 2)
    assert transform.inverse_shape((7, 2)) == (7, *flow.shape)


def test_what_is_wrong_is_said() -> None:
    flow, conditional = moved("images"), moved("labels")
    density = flow.distribution(validate_args=True)  # torch.export changes torch's default
    with pytest.raises(InputError, match=r"values of shape \(\.\.\., 1, 1, 2\), got \(3, 2\)"):
        density.log_prob(torch.zeros(3, 2, dtype=torch.float64))
    with pytest.raises(InputError, match="values in"):
        density.log_prob(torch.full((1, 1, 2), 255.0, dtype=torch.float64))
    unchecked = flow.distribution(validate_args=False)
    assert unchecked.log_prob(torch.full((1, 1, 2), 255.0, dtype=torch.float64)).isnan()
    with pytest.raises(InputError, match="pass condition"):
        conditional.distribution()
    with pytest.raises(InputError, match="depends on none"):
        flow.distribution(torch.tensor([1]))
    with pytest.raises(InputError, match="labels from 0 to 2"):
        conditional.distribution(torch.tensor([3]))
    with pytest.raises(InputError, match=r"do not broadcast with batch_shape \(2,\)"):
        conditional.distribution(torch.tensor([0, 1])).log_prob(torch.zeros(3, 2, dtype=torch.float64))


def test_a_condition_is_not_stretched_and_an_empty_batch_is_one() -> None:
    flow = make_moved_flow((2,), condition={"size": 3})
    for condition in (torch.zeros(5, 1, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)):
        with pytest.raises(InputError, match="expected a condition of shape"):
            flow.distribution(condition)
    assert FlowTransform(make_moved_flow((1, 2, 2)))(torch.empty(0, 1, 2, 2, dtype=torch.float64)).shape == (0, 4)


def test_the_interface_is_that_of_zuko() -> None:
    zuko = pytest.importorskip("zuko")
    theirs, ours = zuko.flows.NSF(2, 4)(torch.zeros(3, 4)), moved("labels").distribution(CONDITION["labels"])
    for density in (theirs, ours):
        assert isinstance(density, torch.distributions.Distribution)
        assert (density.batch_shape, density.event_shape, density.has_rsample) == ((3,), (2,), True)
        x = density.rsample((5,))
        assert x.shape == (5, 3, 2)
        assert x.requires_grad
        assert density.log_prob(x).shape == (5, 3)
        assert density.base.event_shape == (2,)
