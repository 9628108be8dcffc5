"""Fréchet distances: exact ones of Gaussians, bias and error against simulation, features against scikit-learn."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.decomposition import PCA
from torch import Tensor

from acf.data.prepared.tensors import Images
from acf.evaluation.frechet_distance import (
    Moments,
    bootstrap_error,
    expected_between_equals,
    frechet_distance,
    moments,
)
from acf.evaluation.principal_components import fit_components, sample_of

CPU = torch.device("cpu")


def gaussian(seed: int, d: int = 5) -> Moments:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return Moments(torch.randn(d, generator=generator, dtype=torch.float64), root @ root.T)


def draws(count: int, law: Moments, generator: torch.Generator) -> Tensor:
    noise = torch.randn(count, len(law.mean), generator=generator, dtype=torch.float64)
    return law.mean + noise @ torch.linalg.cholesky(law.covariance).T


def test_the_distance_of_gaussians_is_exact() -> None:
    variances = torch.tensor([[4.0, 9.0, 0.0], [1.0, 25.0, 0.25]], dtype=torch.float64)
    means = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 4.0]], dtype=torch.float64)
    one, other = (Moments(mean, torch.diag(v)) for mean, v in zip(means, variances, strict=True))
    assert frechet_distance(one, other) == pytest.approx(5 + 1 + 4 + 0.25, rel=1e-14)
    assert frechet_distance(one, one) == 0
    for seed in range(5):
        one, other = gaussian(seed), gaussian(seed + 100)
        product = np.real(sqrtm(one.covariance.numpy() @ other.covariance.numpy()))
        expected = float((one.mean - other.mean).square().sum())
        expected += float(one.covariance.trace() + other.covariance.trace()) - 2 * np.trace(product)
        assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-10)
        assert frechet_distance(other, one) == pytest.approx(expected, rel=1e-10)


def test_rotations_and_shifts_of_the_features_change_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = draws(200, gaussian(1), generator), draws(150, gaussian(2), generator)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64)).Q
    before = frechet_distance(moments(one), moments(other))
    after = frechet_distance(moments(one @ rotation + 3), moments(other @ rotation + 3))
    assert after == pytest.approx(before, rel=1e-10)
    assert frechet_distance(moments(one), moments(one.flip(0))) == pytest.approx(0, abs=1e-10)


def test_moments_are_unbiased_and_need_two_images() -> None:
    values = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = moments(values.float())
    assert found.covariance.dtype == torch.float64
    assert np.allclose(found.covariance, np.cov(values.float().numpy(), rowvar=False), atol=1e-6)
    with pytest.raises(ValueError, match="at least two"):
        moments(values[:1])


@pytest.mark.parametrize(("count", "other"), [(120, 120), (400, 60)])
def test_the_bias_is_the_mean_between_sets_of_one_gaussian(count: int, other: int) -> None:
    law, generator = gaussian(7, d=4), torch.Generator().manual_seed(1)
    found = torch.tensor(
        [
            frechet_distance(moments(draws(count, law, generator)), moments(draws(other, law, generator)))
            for _ in range(1000)
        ]
    )
    error = float(found.std()) / math.sqrt(len(found))
    expected = expected_between_equals(law, count, other)
    assert float(found.mean()) == pytest.approx(expected, abs=4 * error + 0.03 * expected)


def test_the_bootstrap_has_the_spread_of_new_sets() -> None:
    one, other = gaussian(3, d=3), gaussian(4, d=3)
    generator = torch.Generator().manual_seed(2)
    sets = [(draws(300, one, generator), draws(200, other, generator)) for _ in range(300)]
    spread = float(torch.tensor([frechet_distance(moments(a), moments(b)) for a, b in sets]).std())
    errors = [bootstrap_error(*pair, 60, generator) for pair in sets[:8]]
    assert sum(errors) / len(errors) == pytest.approx(spread, rel=0.2)


@pytest.mark.parametrize("count", [25, 200])
def test_features_are_those_of_scikit_learn(count: int) -> None:
    """With fewer images than values, and with more."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 17, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    other = torch.randint(0, 17, (30, 1, 8, 8), generator=generator, dtype=torch.uint8)
    found = fit_components(images, 6, 17, CPU)
    expected = PCA(6, svd_solver="full").fit(images.flatten(1).double().numpy() / 16)
    features = expected.transform(other.flatten(1).double().numpy() / 16)
    ours = found.features(other).numpy()
    signs = np.sign((ours * features).sum(0))
    assert np.allclose(ours * signs, features, atol=1e-9)
    assert found.explained == pytest.approx(expected.explained_variance_ratio_.sum(), rel=1e-10)
    with pytest.raises(ValueError, match="do not have"):
        fit_components(images[:6], 6, 17, CPU)


def test_images_are_drawn_once_each_and_all_where_there_are_no_more() -> None:
    images = Images(torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1), 256)
    some = sample_of(images, 12, torch.Generator().manual_seed(0)).flatten().tolist()
    assert len(set(some)) == 12
    assert some == sorted(some)
    assert some != list(range(12))
    assert sample_of(images, 30, torch.Generator()).flatten().tolist() == list(range(20))
