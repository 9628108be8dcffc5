"""Initialisation of activation normalisation from the first training batch."""

import math

import pytest
import torch

from acf.flows.actnorm import SMALLEST_STD, ActNorm

SHAPE = (3, 2, 4)


def batch(size: int = 40) -> torch.Tensor:
    """Maps whose channels and values differ in mean and spread."""
    draw = torch.Generator().manual_seed(0)
    spread = 1 + torch.arange(24, dtype=torch.float64).view(SHAPE)
    return spread * torch.randn(size, *SHAPE, dtype=torch.float64, generator=draw) + 5 * spread.flip(0)


@pytest.mark.parametrize(("per_value", "over"), [(False, (0, 2, 3)), (True, (0,))])
def test_first_batch_gets_mean_zero_and_standard_deviation_one(per_value, over):
    layer, x = ActNorm(SHAPE, per_value).double().train(), batch()
    y, log_abs_det = layer(x)
    assert torch.allclose(y.mean(over), torch.zeros(()).double(), atol=1e-9)
    assert torch.allclose(y.std(over, correction=0), torch.ones(()).double(), atol=1e-9)
    count = 24 if per_value else 3
    assert layer.shift.numel() == layer.log_scale.numel() == count
    scale = x.std(over, correction=0).log().sum() * (1 if per_value else 8)
    assert torch.allclose(log_abs_det, -scale.expand(40), rtol=1e-9)


@pytest.mark.parametrize("per_value", [False, True])
def test_only_the_first_batch_in_training_counts(per_value):
    layer, x = ActNorm(SHAPE, per_value).double(), batch()
    assert torch.equal(layer.eval()(x)[0], x)
    assert not layer.initialised
    layer.train()(x)
    before = layer.state_dict()["shift"].clone()
    layer(x + 100)
    assert torch.equal(layer.shift, before)
    again = ActNorm(SHAPE, per_value).double().train()
    again.load_state_dict(layer.state_dict())
    again(x + 100)
    assert torch.equal(again.shift, before)


@pytest.mark.parametrize("per_value", [False, True])
def test_a_constant_batch_of_one_does_not_explode(per_value):
    layer = ActNorm(SHAPE, per_value).double().train()
    y, log_abs_det = layer(torch.full((1, *SHAPE), 7.0, dtype=torch.float64))
    assert torch.equal(y, torch.zeros_like(y))
    assert float(log_abs_det.detach()) == pytest.approx(-24 * math.log(SMALLEST_STD))


def test_parameters_are_learnt_after_initialisation():
    layer, x = ActNorm(SHAPE).double().train(), batch()
    y, log_abs_det = layer(x)
    (y.pow(4).sum() + log_abs_det.sum()).backward()
    assert all(p.grad is not None and float(p.grad.abs().min()) > 0 for p in layer.parameters())
