"""Initialisation of activation normalisation from the first training batch."""

import pytest
import torch

from acf.flows.actnorm import ActNorm
from tests.building_blocks.bijections import make_flow
from tests.building_blocks.settings import with_attention

SHAPE = (3, 2, 4)
LARGEST = 5**0.5
"""Factor at most, that of a variance of 0.2, as in the code of arXiv 1906.02735."""


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
@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-4, 0.05])
def test_a_batch_that_is_nearly_constant_sets_the_mean_and_no_scale(per_value, noise):
    layer = ActNorm(SHAPE, per_value).double().train()
    x = 7 + noise * torch.randn(5, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y, log_abs_det = layer(x)
    assert not log_abs_det.any()
    assert torch.allclose(y.mean((0,) if per_value else (0, 2, 3)), torch.zeros(()).double(), atol=1e-9)
    assert layer.initialised


@pytest.mark.parametrize(
    ("std", "scale"), [(0.0, 1.0), (1e-9, 1.0), (9e-4, 1.0), (2e-3, LARGEST), (0.4, LARGEST), (0.5, 2.0), (4.0, 0.25)]
)
def test_scale_of_a_value_whose_neighbours_vary(std, scale):
    """Beside values of standard deviation 1 one that varies little is enlarged by 5^(1/2) at most."""
    layer = ActNorm((1, 1, 2), per_value=True).double().train()
    x = torch.tensor([[-1.0, 5 - std], [1.0, 5 + std]], dtype=torch.float64).view(2, 1, 1, 2)
    layer(x)
    assert layer.log_scale.exp().flatten().tolist() == pytest.approx([1.0, scale], rel=1e-6)


def test_values_that_all_vary_little_are_enlarged():
    """Standard deviations of 0.2 and 0.3 tell a scale: a batch is nearly constant only below 0.1."""
    layer = ActNorm((1, 1, 2), per_value=True).double().train()
    layer(torch.tensor([[-0.2, -0.3], [0.2, 0.3]], dtype=torch.float64).view(2, 1, 1, 2))
    assert layer.log_scale.exp().flatten().tolist() == pytest.approx([LARGEST, LARGEST], rel=1e-6)


FIRST_BATCHES = {
    "black": torch.zeros(16, 1, 8, 8),
    "grey": torch.full((16, 1, 8, 8), 0.5),
    "black with noise": torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(1)) / 256,
    "one image": torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1)),
    "one image repeated": torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1)).expand(16, -1, -1, -1),
}


@pytest.mark.parametrize("name", FIRST_BATCHES)
@pytest.mark.parametrize("kind", ["none", "l2", "sinkhorn"])
def test_other_images_after_a_first_batch_that_tells_nothing(name, kind):
    """An ordinary first batch gives -0.1 nats per value; without care a constant one gives -1e5 to -1e14."""
    torch.manual_seed(0)
    flow = make_flow((1, 8, 8), (3,), fc_blocks=4, **with_attention(kind)).train()
    x = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        flow.log_prob(FIRST_BATCHES[name])
        assert float(flow.log_prob(x).min()) / 64 > -10


def test_parameters_are_learnt_after_initialisation():
    layer, x = ActNorm(SHAPE).double().train(), batch()
    y, log_abs_det = layer(x)
    (y.pow(4).sum() + log_abs_det.sum()).backward()
    assert all(p.grad is not None and float(p.grad.abs().min()) > 0 for p in layer.parameters())
