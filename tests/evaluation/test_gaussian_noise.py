"""White noise on test images: the density is evaluated on images, and neighbours are those that brute force finds."""

import numpy as np
import pytest
import torch

from acf.data.prepared.labels import Labels
from acf.data.prepared.tensors import Images
from acf.errors import DataError
from acf.evaluation.analyses.gaussian_noise import gaussian_noise, reflected, vote
from acf.evaluation.analysis import Analysed
from acf.evaluation.likelihood import dequantise, measure
from acf.settings.analysis_config import NoiseConfig
from acf.settings.config import EvaluationConfig
from tests.evaluation.small_flow import LEVELS, small_flow

DOUBLE = torch.float64


def test_reflection_folds_what_lies_outside_back() -> None:
    values = torch.tensor([0.3, -0.1, 1.3, 2.2, -1.5, 3.1, 0.0, -0.0], dtype=DOUBLE)
    expected = torch.tensor([0.3, 0.1, 0.7, 0.2, 0.5, 0.9, 0.0, 0.0], dtype=DOUBLE)
    torch.testing.assert_close(reflected(values), expected)
    ends = reflected(torch.tensor([1.0, -1.0, 3.0]))
    assert (ends < 1).all()
    assert (ends > 1 - 1e-6).all()


def test_reflected_noise_leaves_a_uniform_density_uniform() -> None:
    """Cut off at the ends instead, 0.08 of the values would lie on either."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(100_000, generator=generator) + 0.2 * torch.randn(100_000, generator=generator)
    assert reflected(x).histc(10, 0, 1).tolist() == pytest.approx([1e4] * 10, abs=500)


@pytest.mark.parametrize(
    ("neighbours", "winner"),
    [([3, 1, 1], 1), ([3, 1, 2], 3), ([2, 1, 1, 2], 2), ([1, 2, 2, 1, 2], 2), ([0, 5, 5, 7, 7], 5), ([4], 4)],
)
def test_most_neighbours_decide_and_the_nearest_in_a_tie(neighbours: list[int], winner: int) -> None:
    assert vote(torch.tensor([neighbours])).tolist() == [winner]


def analysed(test: torch.Tensor, labels: Labels, batch_size: int = 256) -> Analysed:
    return Analysed(Images(test, LEVELS), Images(test, LEVELS), EvaluationConfig(batch_size=batch_size), labels=labels)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_without_noise_bits_are_those_of_evaluation(dtype: torch.dtype) -> None:
    flow, test = small_flow(dtype)
    torch.manual_seed(7)
    found = gaussian_noise(flow, analysed(test, Labels()), NoiseConfig(sigmas=[0, 0.5], images=10)).content
    assert found["sigmas"] == [0, 0.5]
    assert found["neighbours"] is None
    torch.manual_seed(7)  # the estimator's noise
    measured = measure(flow, test[:10], 1, 256, torch.Generator().manual_seed(0)).bits_per_dim[0]
    assert found["bits_per_dim"][0] == pytest.approx(measured.tolist(), abs=1e-6)
    assert len(found["bits_per_dim"][1]) == 10
    assert found["bits_per_dim"][1] != found["bits_per_dim"][0]


def test_each_image_is_its_own_neighbour_until_noise_drowns_it() -> None:
    flow, test = small_flow(DOUBLE)
    own = list(range(len(test)))
    config = NoiseConfig(sigmas=[0, 1e-3, 100], images=12, train_images=12)
    found = gaussian_noise(flow, analysed(test, Labels(train=own, test=own)), config).content["neighbours"]
    assert found["train_images"] == 12
    for space in ("latent", "pixels"):
        assert found[space][0] == found[space][1] == [1] * 12
        assert sum(found[space][2]) < 6
    others = gaussian_noise(flow, analysed(test, Labels(train=own, test=[*own[1:], 0])), config).content["neighbours"]
    assert others["latent"][0] == others["pixels"][0] == [0] * 12


@pytest.mark.parametrize("k", [1, 3])
def test_neighbours_are_those_of_brute_force_whatever_the_batch(k: int) -> None:
    flow, test = small_flow(DOUBLE)
    labels = Labels(train=[i % 2 for i in range(12)], test=[i % 3 for i in range(12)])
    config = NoiseConfig(sigmas=[0, 0.1], images=12, train_images=7, neighbours=k)
    found = [gaussian_noise(flow, analysed(test, labels, size), config).content["neighbours"] for size in (5, 256)]
    assert found[0] == found[1]
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 2)]
    x, of_train = (
        dequantise(part, LEVELS, one, DOUBLE) for part, one in zip((test, test[:7]), generators, strict=True)
    )
    for space, points in {"pixels": torch.flatten, "latent": lambda images, _: flow.transform(images)}.items():
        queries, among = (points(images, 1).detach().numpy() for images in (x, of_train))
        nearest = ((queries[:, None] - among[None]) ** 2).sum(2).argsort(1)[:, :k] % 2
        chosen = (nearest.mean(1) > 0.5).astype(int)
        assert found[0][space][0] == (chosen == np.array(labels.test)).astype(int).tolist()


def test_one_image_is_not_enough() -> None:
    flow, test = small_flow(DOUBLE)
    with pytest.raises(DataError, match="needs two test images"):
        gaussian_noise(flow, analysed(test[:1], Labels()), NoiseConfig())


@pytest.mark.parametrize("sigmas", [[0], [0.1, 0.2], [0, 0.2, 0.1], [0, 0.1, 0.1], [0, -0.1]])
def test_impossible_sigmas_are_refused(sigmas: list[float]) -> None:
    with pytest.raises(ValueError, match="sigmas"):
        NoiseConfig(sigmas=sigmas)
