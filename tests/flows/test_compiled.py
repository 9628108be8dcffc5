"""Flows under torch.compile: what is not traced runs as it is, with the same numbers."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import acf
from tests.building_blocks.bijections import make_moved_flow
from tests.building_blocks.settings import with_attention


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def moved() -> acf.Flow:
    return make_moved_flow((1, 2, 4), **with_attention("sinkhorn", join="block"))


def images() -> Tensor:
    return torch.rand(3, 1, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Traced as torch.compile does it; the graphs run without generated code, which a C++ compiler takes long for."""
    return torch.compile(function, backend="aot_eager")


@pytest.mark.parametrize("training", [True, False])
def test_log_prob_has_the_values_and_gradients_of_the_flow(training: bool) -> None:
    flow = moved().train(training)
    results = []
    for log_prob in (flow.log_prob, compiled(flow.log_prob)):
        torch.manual_seed(5)
        value = log_prob(images())
        gradients = torch.autograd.grad(value.mean(), list(flow.parameters()), allow_unused=True)
        results.append([value.detach(), *(g for g in gradients if g is not None)])
    assert len(results[0]) > 10
    assert all(torch.allclose(a, b, rtol=0, atol=1e-12) for a, b in zip(*results, strict=True))


def test_the_module_its_samples_and_its_inverse_are_the_same() -> None:
    flow = moved()
    module = torch.compile(flow, backend="aot_eager")
    with torch.no_grad():
        torch.manual_seed(5)
        expected = flow(images())
        torch.manual_seed(5)
        assert all(torch.equal(a, b) for a, b in zip(module(images()), expected, strict=True))
    assert torch.equal(compiled(flow.inverse)(expected[0]), flow.inverse(expected[0]))
    torch.manual_seed(6)
    samples = flow.sample(3)
    torch.manual_seed(6)
    assert torch.equal(compiled(flow.sample)(3), samples)


@pytest.mark.slow  # a minute; `torch.export` traces it in test_exported.py
def test_the_forward_map_is_traced_and_still_refuses_what_is_no_image() -> None:
    flow = moved()
    transform = compiled(flow.transform)
    with torch.no_grad():
        assert torch.allclose(transform(images()), flow.transform(images()), rtol=0, atol=1e-12)
        with pytest.raises(ValueError, match=r"values in \[0, 1\)"):
            transform(255 * images())
    torch._dynamo.utils.counters.clear()
    weight = next(p for p in flow.parameters() if p.dim() == 4)
    expected = torch.autograd.grad(flow.transform(images()).square().sum(), weight)[0]
    found = torch.autograd.grad(transform(images()).square().sum(), weight)[0]
    assert torch.allclose(found, expected, rtol=0, atol=1e-10)


def test_a_compiled_training_step_sees_renormalised_weights() -> None:
    """Graphs must not keep norms of the weights they were traced with."""
    flow = moved()
    transform = compiled(flow.transform)
    with torch.no_grad():
        transform(images())
        for parameter in flow.parameters():
            parameter.mul_(1.5)
        compiled(flow.renormalise)()
        assert torch.allclose(transform(images()), flow.transform(images()), rtol=0, atol=1e-12)
