"""Paths in latent space: known geometry, ends that are the test images, and likelihoods of the images on the way."""

import math

import pytest
import torch

from acf.data.prepared.tensors import Images
from acf.errors import DataError
from acf.evaluation.analyses.interpolation import interpolation, linear, spherical
from acf.evaluation.analysis import Analysed
from acf.evaluation.likelihood import dequantise
from acf.flows.dequantise import bits_per_dim_of
from acf.settings.analysis_config import InterpolationConfig
from acf.settings.config import EvaluationConfig
from tests.evaluation.small_flow import LEVELS, small_flow

T = torch.linspace(0, 1, 5, dtype=torch.float64)


def latents(count: int = 3, size: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, count, size, generator=generator, dtype=torch.float64)
    return one, 3 * other


def test_great_circles_turn_evenly_and_change_the_norm_evenly() -> None:
    one, other = latents()
    path = spherical(one, other, T)
    torch.testing.assert_close(path[:, 0], one)
    torch.testing.assert_close(path[:, -1], other)
    norms = path.norm(dim=2)
    torch.testing.assert_close(norms, (1 - T) * one.norm(dim=1)[:, None] + T * other.norm(dim=1)[:, None])
    unit = path / norms[..., None]
    steps = (unit[:, 1:] * unit[:, :-1]).sum(2).arccos()
    whole = torch.nn.functional.cosine_similarity(one, other).arccos()
    torch.testing.assert_close(steps, (whole / 4)[:, None].expand(-1, 4))


def test_a_quarter_turn_in_the_plane() -> None:
    path = spherical(torch.tensor([[2.0, 0.0]]).double(), torch.tensor([[0.0, 4.0]]).double(), T[[0, 2, 4]])
    half = 3 / math.sqrt(2)
    torch.testing.assert_close(path, torch.tensor([[[2.0, 0.0], [half, half], [0.0, 4.0]]]).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parallel_and_opposite_vectors_have_paths(dtype: torch.dtype) -> None:
    one = latents()[0].to(dtype)
    torch.testing.assert_close(spherical(one, 2 * one, T.to(dtype)), linear(one, 2 * one, T.to(dtype)))
    path = spherical(one, -one, T.to(dtype))
    torch.testing.assert_close(path[:, -1], -one, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(path.norm(dim=2), one.norm(dim=1)[:, None].expand(-1, 5))
    assert path[:, 2].mul(one).sum(1).abs().max() < 1e-4 * one.square().sum(1).min()


def test_straight_lines_lose_norm_where_great_circles_do_not() -> None:
    one, other = torch.randn(2, 200, 400, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    norms = {way: way(one, other, T)[:, 2].norm(dim=1).mean() / 20 for way in (linear, spherical)}
    assert norms[linear] == pytest.approx(1 / math.sqrt(2), rel=0.01)
    assert norms[spherical] == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize(("dtype", "accuracy"), [(torch.float32, 1e-2), (torch.float64, 1e-6)])
def test_ends_are_the_test_images_and_likelihoods_those_of_the_images(dtype: torch.dtype, accuracy: float) -> None:
    flow, test = small_flow(dtype)
    config = InterpolationConfig(pairs=2, pictured_pairs=1, steps=3)
    analysed = Analysed(Images(test, LEVELS), Images(test, LEVELS), EvaluationConfig())
    torch.manual_seed(5)
    found = interpolation(flow, analysed, config)
    assert found.content["round_trip"] < accuracy
    x = dequantise(test[:4], LEVELS, torch.Generator().manual_seed(0), dtype)
    z = flow.transform(x)
    torch.manual_seed(5)  # the estimator's noise
    for name, way in {"linear": linear, "spherical": spherical}.items():
        path = found.content[name]
        assert path["t"] == [0, 0.5, 1]
        images = flow.inverse(way(z[0::2], z[1::2], torch.tensor([0, 0.5, 1], dtype=dtype)).flatten(0, 1))
        bits = bits_per_dim_of(flow.log_prob(images.clamp(0, 1 - torch.finfo(dtype).eps / 2)), flow.config)
        assert torch.tensor(path["bits_per_dim"]).flatten().tolist() == pytest.approx(bits.tolist(), rel=1e-5)
        outside = (images < 0) | (images > 1 - torch.finfo(dtype).eps / 2)
        assert path["outside"] == pytest.approx(outside.double().mean().item())
        torch.testing.assert_close(images[[0, 2]], x[:2], rtol=0, atol=accuracy)
    assert 0 < found.content["inverse_bound"] < accuracy
    assert found.picture is not None
    assert found.picture.size == (3 * 5 + 1, 2 * 5 + 1)


def test_as_many_pairs_as_there_are_and_not_fewer_than_two() -> None:
    flow, test = small_flow(torch.float64)
    config = InterpolationConfig(pairs=50, steps=2)
    found = interpolation(flow, Analysed(Images(test, LEVELS), Images(test[:5], LEVELS), EvaluationConfig()), config)
    assert len(found.content["linear"]["bits_per_dim"]) == 2
    with pytest.raises(DataError, match="fewer than four images"):
        interpolation(flow, Analysed(Images(test, LEVELS), Images(test[:3], LEVELS), EvaluationConfig()), config)
