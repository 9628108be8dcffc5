"""The models that come with the package are what their cards say."""

import math
from pathlib import Path

import pytest
import torch

import acf
from acf.data import load
from acf.errors import InputError
from acf.examples import FOLDER
from acf.reporting.result_files import read_result
from acf.reporting.schemas import Metrics
from acf.reporting.wording import bound, with_error
from acf.settings.config import EvaluationLogDetConfig

EXAMPLES = acf.example_names()
MEGABYTES = 2


def measured(name: str) -> Metrics:
    flow = acf.load_example(name)
    assert flow.origin is not None
    return Metrics.model_validate(flow.origin.record["metrics"])


def test_there_is_one_of_digits() -> None:
    assert "digits" in EXAMPLES
    with pytest.raises(InputError, match=r"no example 'faces'; there are: .*digits"):
        acf.load_example("faces")


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_small_certified_and_samples(name: str) -> None:
    assert sum(path.stat().st_size for path in (FOLDER / name).iterdir()) < MEGABYTES * 1e6
    flow, metrics = acf.load_example(name), measured(name)
    assert not flow.training
    certificate = acf.certify(flow)
    assert certificate.worst < 1
    assert certificate.worst == pytest.approx(metrics.certificate.worst, rel=1e-6)
    samples = flow.sample(4)
    assert samples.shape == (4, *flow.shape)
    assert 0 <= float(samples.min()) <= float(samples.max()) < 1
    x = torch.rand(4, *flow.shape)
    assert float((flow.inverse(flow.transform(x)) - x).abs().max()) < 1e-4


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_card_has_the_numbers_of_the_record(name: str) -> None:
    flow, metrics = acf.load_example(name), measured(name)
    assert flow.origin is not None
    assert flow.origin.card is not None
    assert with_error(metrics.bits_per_dim, metrics.bits_per_dim_se) in flow.origin.card
    assert bound(metrics.certificate.worst) in flow.origin.card


def test_digits_has_the_bits_per_dim_of_its_card(digits: Path) -> None:
    flow, metrics = acf.load_example("digits"), measured("digits")
    images = load("digits", "test", digits, flow.config.levels)
    assert len(images) == metrics.test_images
    flow.use_evaluation_estimator(EvaluationLogDetConfig.model_validate(metrics.estimator))
    with torch.no_grad():
        found = float(acf.bits_per_dim(flow, images[:]).mean())
    # Of the same images, so that only the draws differ: one here, and theirs.
    assert metrics.bits_per_dim_se_draws is not None
    error = metrics.bits_per_dim_se_draws * math.sqrt(1 + metrics.draws)
    assert error < metrics.bits_per_dim_se
    assert found == pytest.approx(metrics.bits_per_dim, abs=4 * error)


def test_digits_is_the_model_of_the_committed_results() -> None:
    """A training that is made again has its example made again: `make example`."""
    path = Path(__file__).parents[1] / "results/digits/acf-sinkhorn/seed0/metrics.json"
    identity = {"experiment": "digits", "variant": "acf-sinkhorn", "seed": 0}
    assert measured("digits") == read_result(path, Metrics, identity, "acf evaluate")
