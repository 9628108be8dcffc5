"""Bits/dim: what it is made of, its error, and what it refuses."""

import math

import pytest
import torch
from torch import Tensor

import acf
from acf.errors import DataError
from acf.evaluation.likelihood import Likelihood, measure
from acf.evaluation.metrics import evaluate_flow
from acf.flows.dequantise import dequantise
from acf.settings.config import EvaluationConfig
from tests.building_blocks.bijections import make_moved_flow

CONFIG = {
    "shape": (1, 4, 4),
    "levels": 8,
    "blocks": [2],
    "idim": 6,
    "fc_blocks": 1,
    "fc_width": 4,
    "evaluation_log_det": {"exact_terms": 3},
}


@pytest.fixture
def flow() -> acf.Flow:
    torch.manual_seed(0)
    return acf.build(CONFIG).double().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 8, (12, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def test_dequantisation_stays_in_its_level() -> None:
    images = torch.arange(256, dtype=torch.uint8).repeat(50)
    for dtype in (torch.float32, torch.float64):
        x = dequantise(images, 256, dtype=dtype)
        assert x.dtype == dtype
        assert float(x.max()) < 1
        assert float(((x * 256).floor() == images).double().mean()) > 0.999
        assert abs(float((x * 256 - images).mean()) - 0.5) < 0.01


def test_bits_per_dim_is_log_prob_in_other_units(flow: acf.Flow, images: Tensor) -> None:
    torch.manual_seed(3)
    bits = acf.bits_per_dim(flow, images, generator())
    torch.manual_seed(3)
    nats = flow.log_prob(dequantise(images, 8, generator(), torch.float64))
    torch.testing.assert_close(bits, -nats / math.log(2) / 16 + 3)
    assert bits.shape == (12,)


def test_bits_per_dim_of_a_conditional_flow() -> None:
    exact = {"evaluation_log_det": {"estimator": "exact"}}
    flow = make_moved_flow((1, 2, 2), condition={"classes": 3}, **exact)
    images, c = torch.randint(256, (4, 1, 2, 2), dtype=torch.uint8), torch.tensor([0, 1, 2, 0])
    found = acf.bits_per_dim(flow, images, torch.Generator().manual_seed(0), c)
    x = dequantise(images, 256, torch.Generator().manual_seed(0), torch.float64)
    assert torch.allclose(found, -flow.log_prob(x, c) / (4 * math.log(2)) + 8)


def test_bits_per_dim_of_the_uniform_density_is_log2_of_the_levels() -> None:
    """A flow whose density is known: the logistic density's own flow has no residual blocks to estimate."""
    likelihood = Likelihood(torch.zeros(2, 3), torch.zeros(2, 3), math.log2(17))
    assert likelihood.summary()["bits_per_dim"] == pytest.approx(math.log2(17))


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(2, 1, 4, 4),
        torch.zeros(2, 1, 4, 5, dtype=torch.uint8),
        torch.zeros(1, 4, 4, dtype=torch.uint8),
        torch.full((2, 1, 4, 4), 8, dtype=torch.uint8),
    ],
)
def test_wrong_images_are_refused(flow: acf.Flow, bad: Tensor) -> None:
    with pytest.raises(DataError, match="expected uint8 images"):
        acf.bits_per_dim(flow, bad)


def test_parts_add_up_and_do_not_depend_on_the_batch_size(flow: acf.Flow, images: Tensor) -> None:
    small = measure(flow, images, 2, 5, generator())
    large = measure(flow, images, 2, 12, generator())
    torch.testing.assert_close(small.log_prob_z, large.log_prob_z)
    summary = small.summary()
    assert sum(summary["parts"].values()) == pytest.approx(summary["bits_per_dim"], abs=1e-12)  # type: ignore[attr-defined]
    assert small.bits_per_dim.shape == (2, 12)


def test_standard_errors_by_their_definition() -> None:
    torch.manual_seed(0)
    values = torch.randn(5, 400, dtype=torch.float64) * 0.3 + torch.randn(400, dtype=torch.float64)
    summary = Likelihood(values, torch.zeros_like(values), 0.0).summary()
    means = [float(column.mean()) for column in values.T]
    centre = sum(means) / 400
    expected = math.sqrt(sum((m - centre) ** 2 for m in means) / 399 / 400)
    assert summary["bits_per_dim_se"] == pytest.approx(expected)
    assert summary["bits_per_dim_se_draws"] == pytest.approx(0.3 / math.sqrt(5 * 400), rel=0.1)
    single = Likelihood(values[:1], torch.zeros(1, 400), 0.0).summary()
    assert single["bits_per_dim_se_draws"] is None


def test_standard_error_covers_the_noise_of_the_estimator(flow: acf.Flow, images: Tensor) -> None:
    """Repeated measurements of the same images scatter as `bits_per_dim_se_draws` says."""
    torch.manual_seed(7)
    noise = generator()
    means, errors = [], []
    for _ in range(60):
        summary = measure(flow, images, 4, 12, noise).summary()
        means.append(summary["bits_per_dim"])
        errors.append(summary["bits_per_dim_se_draws"])
    scatter = float(torch.tensor(means).std())
    claimed = math.sqrt(float(torch.tensor(errors).square().mean()))
    assert 0.7 < scatter / claimed < 1.4


def test_metrics_say_how_far_off_the_forward_map_may_be(images: Tensor) -> None:
    torch.manual_seed(0)
    flow = acf.build(CONFIG | {"block": "monotone"})
    flow.train().log_prob(torch.rand(12, 1, 4, 4))
    acf.tighten(flow.eval())
    metrics = evaluate_flow(flow, images, EvaluationConfig(draws=1)).metrics
    assert 0 < metrics["forward_error"] < 1e-4
