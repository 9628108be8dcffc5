"""What every bijection has to do: an inverse, the log-determinant of its Jacobian, gradients, copies and storage."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import acf
from tests.building_blocks.bijections import BIJECTIONS, FLOWS

every_bijection = pytest.mark.parametrize("name", BIJECTIONS)
every_flow = pytest.mark.parametrize("name", FLOWS)


def same(a: nn.Module, b: nn.Module, x: Tensor) -> bool:
    """Whether both give identical outputs and log-determinants from the same randomness."""
    outputs = []
    with torch.no_grad():
        for module in (a, b):
            torch.manual_seed(7)
            outputs.append(module(x))
    return all(torch.equal(one, other) for one, other in zip(*outputs, strict=True))


@every_bijection
@pytest.mark.parametrize("batch", [1, 5])
def test_shapes(name, batch):
    case = BIJECTIONS[name]
    y, log_abs_det = case.build()(case.inputs(batch))
    assert len(y) == batch
    assert y[0].numel() == torch.Size(case.shape).numel()
    assert (y.dim() == 2) == case.flat
    assert log_abs_det.shape == (batch,)
    assert y.dtype == log_abs_det.dtype == torch.float64


@every_bijection
def test_inverse_undoes_forward(name):
    case = BIJECTIONS[name]
    bijection, x = case.build(), case.inputs(6)
    back = bijection.inverse(bijection.transform(x).detach())
    assert back.shape == x.shape
    assert torch.allclose(back, x, rtol=0, atol=1e-4 if case.iterative else 1e-9)


@every_bijection
def test_forward_undoes_inverse(name):
    case = BIJECTIONS[name]
    bijection, z = case.build(), case.outputs(6)
    again = bijection.transform(bijection.inverse(z)).detach()
    assert torch.allclose(again, z, rtol=1e-5, atol=2e-3 if case.iterative else 1e-9)


@every_bijection
def test_transform_is_forward_without_the_log_determinant(name):
    case = BIJECTIONS[name]
    bijection, x = case.build(), case.inputs(3)
    with torch.no_grad():
        assert torch.allclose(bijection(x)[0], bijection.transform(x), rtol=1e-10, atol=1e-12)
    assert torch.allclose(bijection(x)[0], bijection.transform(x), rtol=1e-10, atol=1e-12)


def exact(bijection: nn.Module, x: Tensor) -> Tensor:
    """Log-determinant of one sample by autograd through the whole map."""
    jacobian = torch.autograd.functional.jacobian(lambda t: bijection.transform(t.unsqueeze(0)).flatten(), x)
    return torch.linalg.slogdet(jacobian.flatten(1)).logabsdet


@every_bijection
def test_log_determinant_is_that_of_the_jacobian(name):
    case = BIJECTIONS[name]
    bijection, x = case.build(), case.inputs(1 if case.iterative else 2)
    for sample in x:
        truth = float(exact(bijection, sample))
        if not case.iterative:
            assert float(bijection(sample.unsqueeze(0))[1].detach()) == pytest.approx(truth, abs=1e-9)
            continue
        torch.manual_seed(3)
        with torch.no_grad():
            estimates = bijection(sample.expand(3000, *case.shape))[1]
        # 4 standard errors, and rounding.
        assert abs(float(estimates.mean()) - truth) <= 4 * float(estimates.std()) / 3000**0.5 + 1e-6


@every_bijection
@pytest.mark.parametrize("training", [True, False])
def test_gradients_reach_every_parameter(name, training):
    case = BIJECTIONS[name]
    bijection, x = case.build().train(training), case.inputs(4).requires_grad_(True)
    torch.manual_seed(0)
    y, log_abs_det = bijection(x)
    (y.square().sum() - log_abs_det.sum()).backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0
    for key, parameter in bijection.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key


def pickled(module: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(module))


@every_bijection
def test_stored_state_gives_the_same_bijection(name):
    case = BIJECTIONS[name]
    one, other, x = case.build(seed=0), case.build(seed=1), case.inputs(3)
    if one.state_dict():
        assert not same(one, other, x)
    other.load_state_dict(one.state_dict())
    assert same(one, other, x)


@every_bijection
def test_copies_give_the_same_results(name):
    case = BIJECTIONS[name]
    bijection, x = case.build(), case.inputs(3)
    bijection.inverse(bijection.transform(x).detach())  # leaves a stored bound to copy
    for again in (copy.deepcopy, pickled):
        assert same(again(bijection), bijection, x)


@every_bijection
def test_results_without_gradients_are_the_same(name):
    case = BIJECTIONS[name]
    bijection, x = case.build(), case.inputs(3)
    torch.manual_seed(1)
    with_graph = bijection(x)
    for context in (torch.no_grad, torch.inference_mode):
        torch.manual_seed(1)
        with context():
            without = bijection(x.clone())
        assert not any(t.requires_grad for t in without)
        assert all(torch.allclose(a, b, rtol=1e-10) for a, b in zip(without, with_graph, strict=True))


@every_bijection
def test_float32_agrees_with_float64(name):
    case = BIJECTIONS[name]
    double, single, x = case.build(), case.build().float(), case.inputs(3)
    y, log_abs_det = single(x.float())
    assert y.dtype == log_abs_det.dtype == torch.float32
    assert torch.allclose(y.double(), double(x)[0], rtol=1e-4, atol=1e-4)
    back = single.inverse(y.detach())
    assert back.dtype == torch.float32
    assert torch.allclose(back, x.float(), rtol=0, atol=1e-3)


@every_bijection
def test_samples_are_independent(name):
    case = BIJECTIONS[name]
    bijection, x = case.build(), case.inputs(5)
    alone = torch.cat([bijection.transform(sample.unsqueeze(0)) for sample in x])
    assert torch.allclose(bijection.transform(x), alone, rtol=1e-10, atol=1e-12)


@every_flow
def test_saved_and_loaded(name, tmp_path):
    case = FLOWS[name]
    flow, x = case.build(), case.inputs(4)
    acf.save(flow, tmp_path, {"note": "kept"})
    loaded = acf.load(tmp_path)
    assert same(loaded, flow, x)
    assert loaded.config == flow.config
    assert acf.certify(loaded) == acf.certify(flow)
    z = flow.transform(x).detach()
    assert torch.equal(loaded.inverse(z), flow.inverse(z))


@every_flow
def test_density_and_samples(name):
    case = FLOWS[name]
    flow, x = case.build(), case.inputs(2)
    torch.manual_seed(0)
    z, log_abs_det = flow(x)
    torch.manual_seed(0)
    normal = torch.distributions.Normal(0, 1).log_prob(z).sum(1)
    assert torch.allclose(flow.log_prob(x), normal + log_abs_det)
    images = flow.sample(3, generator=torch.Generator().manual_seed(0))
    assert images.shape == (3, *case.shape)
    assert not case.unit or 0 <= float(images.min()) <= float(images.max()) < 1


@every_flow
def test_unsuitable_inputs_are_refused(name):
    case = FLOWS[name]
    flow = case.build()
    with pytest.raises(ValueError, match=r"expected (images|vectors) of shape"):
        flow(torch.rand(2, *case.shape[1:], dtype=torch.float64))
    with pytest.raises(ValueError, match="floating-point"):
        flow(torch.zeros(2, *case.shape, dtype=torch.uint8))
    with pytest.raises(ValueError, match="expected z of shape"):
        flow.inverse(torch.zeros(2, *case.shape, 1, dtype=torch.float64))
