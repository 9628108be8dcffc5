"""The baselines are normalised densities, and their bits/dim and standard errors are what theory says."""

import json
import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from acf.data.prepared.tensors import Images
from acf.errors import DataError
from acf.evaluation.densities import (
    FullGaussian,
    PixelHistogram,
    Uniform,
    density_bits,
)
from acf.evaluation.likelihood import dequantise
from acf.settings.config import EvaluationConfig
from acf.stages.baselines import baselines

LEVELS = 5


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    noise = torch.randint(0, 3, (400, 1, 2, 3), generator=generator)
    return (noise + noise.flip(-1).clamp(max=2)).to(torch.uint8)


def test_the_histogram_of_a_pixel_integrates_to_one(images):
    pixel = images[:, :, :1, :1]
    density = PixelHistogram.fit(Images(pixel, LEVELS))
    middles = ((torch.arange(1000, dtype=torch.float64) + 0.5) / 1000).view(-1, 1, 1, 1)
    assert density.log_prob(middles).exp().mean().item() == pytest.approx(1, abs=1e-12)


def test_the_histogram_is_the_product_of_its_pixels(images):
    x = dequantise(images[:7], LEVELS, torch.Generator().manual_seed(0), torch.float64)
    whole = PixelHistogram.fit(Images(images, LEVELS)).log_prob(x)
    parts = [
        PixelHistogram.fit(Images(images[..., i : i + 1, j : j + 1], LEVELS)).log_prob(x[..., i : i + 1, j : j + 1])
        for i in range(2)
        for j in range(3)
    ]
    torch.testing.assert_close(whole, torch.stack(parts).sum(0))


def test_the_histogram_scores_its_own_training_images_with_the_entropy(images):
    many = images.repeat(500, 1, 1, 1)  # so many that the pseudo-counts do not matter
    bits = density_bits({"histogram": PixelHistogram.fit(Images(many, LEVELS))}, images, LEVELS, EvaluationConfig())[
        "histogram"
    ]
    flat = images.flatten(1)
    frequency = torch.stack([(flat == k).double().mean(0) for k in range(LEVELS)])
    entropy = -torch.xlogy(frequency, frequency).sum(0).mean().item() / math.log(2)
    assert bits.mean().item() + math.log2(LEVELS) == pytest.approx(entropy, abs=1e-4)


def test_a_level_the_training_images_lack_stays_possible(images):
    density = PixelHistogram.fit(Images(torch.zeros_like(images), LEVELS))
    brightest = torch.full((1, 1, 2, 3), 0.999, dtype=torch.float64)
    expected = 6 * math.log(LEVELS / (len(images) + LEVELS))
    assert density.log_prob(brightest).item() == pytest.approx(expected)


def test_the_gaussian_agrees_with_torch(images):
    generator = torch.Generator().manual_seed(1)
    x = dequantise(images[:50], LEVELS, generator, torch.float64)
    flat = images.flatten(1).double()
    covariance = torch.cov(flat.T, correction=0) + torch.eye(6, dtype=torch.float64) / 12
    reference = MultivariateNormal((flat.mean(0) + 0.5) / LEVELS, covariance / LEVELS**2)
    torch.testing.assert_close(FullGaussian.fit(Images(images, LEVELS)).log_prob(x), reference.log_prob(x.flatten(1)))


def test_the_gaussian_has_the_moments_of_dequantised_images(images):
    generator = torch.Generator().manual_seed(1)
    x = dequantise(images.repeat(500, 1, 1, 1), LEVELS, generator, torch.float64).flatten(1)
    density = FullGaussian.fit(Images(images, LEVELS))
    torch.testing.assert_close(density.mean, x.mean(0), atol=2e-3, rtol=0)
    torch.testing.assert_close(density.cholesky @ density.cholesky.T, torch.cov(x.T), atol=1e-3, rtol=0)


def test_the_gaussian_is_the_same_however_the_images_are_chunked(images, monkeypatch):
    whole = FullGaussian.fit(Images(images, LEVELS))
    histogram = PixelHistogram.fit(Images(images, LEVELS))
    monkeypatch.setattr("acf.evaluation.densities.CHUNK", 7)
    torch.testing.assert_close(FullGaussian.fit(Images(images, LEVELS)).cholesky, whole.cholesky)
    assert torch.equal(PixelHistogram.fit(Images(images, LEVELS)).log_density, histogram.log_density)


def test_the_gaussian_takes_pixels_that_never_change():
    constant = torch.full((10, 1, 2, 2), 3, dtype=torch.uint8)
    x = torch.full((1, 1, 2, 2), 3.5 / LEVELS, dtype=torch.float64)
    expected = -2 * math.log(2 * math.pi / (12 * LEVELS**2))
    assert FullGaussian.fit(Images(constant, LEVELS)).log_prob(x).item() == pytest.approx(expected)


def test_the_gaussian_needs_more_images_than_values():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, LEVELS, (7, 1, 2, 3), generator=generator, dtype=torch.uint8)
    FullGaussian.fit(Images(images, LEVELS))
    with pytest.raises(DataError, match="6 images are too few for the covariance of 6 values"):
        FullGaussian.fit(Images(images[:6], LEVELS))


def test_uniform_is_the_number_of_bits_exactly(images):
    bits = density_bits({"uniform": Uniform.fit(Images(images, 17))}, images, 17, EvaluationConfig(draws=2))
    assert bits["uniform"].abs().max() == 0


def test_parameters_are_counted(images):
    assert Uniform.fit(Images(images, LEVELS)).parameters == 0
    assert PixelHistogram.fit(Images(images, LEVELS)).parameters == 6 * 4
    assert FullGaussian.fit(Images(images, LEVELS)).parameters == 6 + 21


def test_noise_depends_on_the_seed_alone(images):
    gaussian = FullGaussian.fit(Images(images, LEVELS))

    def bits(densities, **config):
        return density_bits(densities, images, LEVELS, EvaluationConfig(draws=2, **config))["gaussian"]

    alone = bits({"gaussian": gaussian}, seed=5)
    together = bits({"uniform": Uniform(), "gaussian": gaussian}, seed=5, batch_size=64)
    torch.testing.assert_close(alone, together, rtol=1e-12, atol=0)
    assert not torch.allclose(alone, bits({"gaussian": gaussian}, seed=6))


def test_the_stage_writes_means_and_standard_errors_over_images(digits_root):
    baselines("digits", digits_root)
    result = json.loads((digits_root / "results/digits/baselines.json").read_text())
    assert (result["dataset"], result["test_images"], result["draws"]) == ("digits", 297, 3)

    train = torch.load(digits_root / "data/digits/train.pth")
    test = torch.load(digits_root / "data/digits/test.pth")
    generator = torch.Generator().manual_seed(7)
    gaussian = FullGaussian.fit(Images(train, 17))
    draws = [gaussian.log_prob(dequantise(test, 17, generator, torch.float64)) for _ in range(3)]
    per_image = math.log2(17) - torch.stack(draws).mean(0) / (64 * math.log(2))
    variance = ((per_image - per_image.mean()) ** 2).sum() / 296
    stored = result["baselines"]["gaussian"]
    assert stored["bits_per_dim"] == pytest.approx(per_image.mean().item(), rel=1e-12)
    assert stored["bits_per_dim_se"] == pytest.approx(math.sqrt(variance.item() / 297), rel=1e-12)
    assert stored["parameters"] == 64 + 64 * 65 // 2
    uniform = result["baselines"]["uniform"]
    assert (uniform["bits_per_dim"], uniform["bits_per_dim_se"]) == (math.log2(17), 0)
    histogram = result["baselines"]["histogram"]
    assert max(stored["bits_per_dim"], histogram["bits_per_dim"]) < uniform["bits_per_dim"]


@pytest.fixture
def digits_root(tmp_path):
    """A project folder with prepared digits, evaluated with 3 draws."""
    import yaml

    from acf.stages.prepare import prepare

    evaluation = {"draws": 3, "images": None, "seed": 7}
    experiment = {
        "seeds": [0],
        "model": {},
        "training": {},
        "evaluation": evaluation,
        "sampling": {},
        "analyses": {},
        "reporting": {},
        "dataset": "digits",
        "variants": {"resflow": {}},
    }
    params = {
        "defaults": {"model": {}, "training": {}, "evaluation": {}, "sampling": {}, "analyses": {}, "reporting": {}},
        "datasets": {"digits": {}},
        "variants": {"resflow": {}},
        "experiments": {"digits": experiment},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    prepare("digits", tmp_path / "data")
    return tmp_path
