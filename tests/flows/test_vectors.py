"""Flows on vectors (D,), and exact log-determinants."""

import itertools
import math

import pytest
import torch
from torch import Tensor

import acf
from acf.errors import ConfigError
from acf.flows.exact import differentiable_value_and_exact_log_det, value_and_exact_log_det
from acf.flows.logdet import exact_log_det
from tests.building_blocks.bijections import make_flow, make_moved_flow
from tests.building_blocks.blocks import make_residual_block
from tests.building_blocks.settings import with_attention

EXACT = {"training_log_det": {"estimator": "exact"}, "evaluation_log_det": {"estimator": "exact"}}


def vectors(batch: int, size: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(batch, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) - 1


def log_abs_det_of_jacobian(flow: acf.Flow, x: Tensor) -> Tensor:
    jacobian = torch.func.vmap(torch.func.jacrev(lambda one: flow.transform(one[None])[0]))(x)
    return torch.linalg.slogdet(jacobian.flatten(2)).logabsdet


def test_a_flow_on_vectors_has_the_shapes_of_vectors() -> None:
    flow = make_flow((5,)).train()
    x = vectors(7, 5).float()
    (-flow.log_prob(x).mean()).backward()
    flow.renormalise()
    acf.tighten(flow.eval(), max_factor=3)
    z, log_abs_det = flow(x)
    assert flow.shape == (5,)
    assert z.shape == (7, 5)
    assert log_abs_det.shape == (7,)
    assert flow.inverse(z).shape == (7, 5)
    assert flow.sample(3).shape == (3, 5)
    assert (flow.inverse(z) - x).abs().max() < 1e-4


def test_samples_are_not_clamped() -> None:
    flow = make_moved_flow((2,))
    assert flow.sample(200, generator=torch.Generator().manual_seed(0)).min() < 0


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_exact_log_determinants_are_those_of_the_jacobian(mode: str) -> None:
    flow = make_moved_flow((3,), (3,), **EXACT)
    x = vectors(6, 3)
    flow.train(mode == "train")
    expected = log_abs_det_of_jacobian(flow.eval(), x)
    flow.train(mode == "train")
    with torch.no_grad():
        assert torch.allclose(flow(x)[1], expected, atol=1e-12, rtol=0)
    assert torch.allclose(flow(x)[1], expected, atol=1e-12, rtol=0)


def test_the_exact_density_integrates_to_one() -> None:
    flow = make_moved_flow((2,), (3,), **EXACT)
    side = torch.linspace(-12, 12, 401, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).flatten(0, 1)
    with torch.no_grad():
        density = torch.cat([flow.log_prob(piece).exp() for piece in grid.split(50_000)])
    assert math.isclose(float(density.sum()) * (24 / 400) ** 2, 1, abs_tol=1e-3)


@pytest.mark.parametrize("branch", ["conv", "dense", "potential", "fc"])
@pytest.mark.parametrize("shape", [(4, 1, 1), (2, 1, 2)])
def test_the_exact_gradient_is_that_of_autograd(branch: str, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    block = make_residual_block(shape, branch=branch).double().train()
    x = torch.randn(5, *shape, dtype=torch.float64, requires_grad=True)
    of_y, of_value = torch.randn_like(x), torch.randn(5, dtype=torch.float64)
    sources = [x, *block.branch.parameters()]

    y, value = differentiable_value_and_exact_log_det(block.branch, block.log_det_form, x)
    ours = torch.autograd.grad([y, value], sources, [of_y, of_value], materialize_grads=True)
    reference = block.branch(x), exact_log_det(block.branch, x)
    theirs = torch.autograd.grad(reference, sources, [of_y, of_value], materialize_grads=True)

    assert torch.allclose(value, reference[1], atol=1e-12)
    assert torch.allclose(value_and_exact_log_det(block.branch, block.log_det_form, x)[1], value, atol=1e-12)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.allclose(mine, other, atol=1e-10), mine - other


def test_the_series_is_an_unbiased_estimate_of_the_exact_value() -> None:
    flow = make_moved_flow((3,), (2,))
    x = vectors(1, 3).expand(4000, 3)
    exact = float(log_abs_det_of_jacobian(flow, x[:1]).detach())
    torch.manual_seed(0)
    with torch.no_grad():
        estimates = flow(x)[1]
    assert abs(float(estimates.mean()) - exact) < 4 * float(estimates.std()) / math.sqrt(len(x))


IMPOSSIBLE = {
    "attention": ({"shape": (4,), "blocks": [2], **with_attention("dot")}, "vectors have none"),
    "scales": ({"shape": (4,), "blocks": [2, 2]}, "one scale"),
    "levels": ({"shape": (4,), "blocks": [2], "levels": 256}, "vectors have none"),
    "images without levels": ({"shape": (1, 4, 4), "blocks": [2], "levels": None}, "images have grey levels"),
    "two numbers": ({"shape": (4, 4), "blocks": [2]}, r"\(C, H, W\) of an image or \(D,\) of a vector"),
    "squeeze": ({"shape": (4,), "blocks": [2], "squeeze_first": True}, "cannot be halved"),
    "exact and large": ({"shape": (1, 32, 32), "blocks": [1], **EXACT}, "at most 256 values"),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_settings_are_refused_in_words(name: str) -> None:
    settings, words = IMPOSSIBLE[name]
    with pytest.raises(ConfigError, match=words):
        acf.build(settings)


BAD = {
    "nan": (vectors(4, 2).float().index_fill(0, torch.tensor([2]), torch.nan), "2 of 8 .* in vectors 2;"),
    "shape": (torch.zeros(4, 3), r"expected vectors of shape \(B, 2\)"),
    "image": (torch.zeros(4, 2, 1, 1), r"expected vectors of shape \(B, 2\)"),
    "whole numbers": (torch.zeros(4, 2, dtype=torch.long), "floating-point vectors"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_batch_of_vectors_is_refused(name: str) -> None:
    x, words = BAD[name]
    with pytest.raises(ValueError, match=words):
        make_flow((2,)).log_prob(x)


def test_grey_levels_are_those_of_images() -> None:
    with pytest.raises(ValueError, match="flows on images"):
        acf.bits_per_dim(make_moved_flow((2,)), torch.zeros(1, 2, dtype=torch.uint8))


def test_a_stored_flow_on_vectors_is_the_same(tmp_path: object) -> None:
    flow = make_moved_flow((2,), **EXACT)
    acf.save(flow, f"{tmp_path}")
    x = vectors(4, 2)
    assert torch.equal(acf.load(f"{tmp_path}").log_prob(x), flow.log_prob(x))


def test_order_of_samples_does_not_matter() -> None:
    flow, x = make_moved_flow((2,), **EXACT), vectors(6, 2)
    for order in itertools.islice(itertools.permutations(range(6)), 3):
        assert torch.allclose(flow.log_prob(x[list(order)]), flow.log_prob(x)[list(order)], atol=1e-12)
