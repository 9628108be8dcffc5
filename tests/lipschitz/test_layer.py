"""What the base class gives a layer that implements its map and its bound only, and the closed forms of the others."""

import pytest
import torch
from torch import Tensor, nn

from acf.lipschitz import Branch, LipschitzLayer, NormalisedLinear
from acf.lipschitz.layer import flatten, unflatten
from tests.building_blocks.layers import LAYERS
from tests.building_blocks.noise import noise
from tests.building_blocks.weights import move_all_parameters

every_layer = pytest.mark.parametrize("name", LAYERS)


class Wave(LipschitzLayer):
    """sin(a x + b cumsum(x)), whose Jacobian is not symmetric."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.tensor(value, dtype=torch.float64)) for value in (0.3, 0.4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.a * x + self.b * x.cumsum(1))

    def lipschitz_bound(self, n_tokens: int) -> float:
        return 10.0


def dense(layer: nn.Module, x: Tensor) -> Tensor:
    return torch.stack([torch.autograd.functional.jacobian(layer, sample[None])[0, :, 0] for sample in x])


def test_the_default_vjp_is_that_of_the_jacobian_for_the_first_samples_too():
    layer, x, u = Wave(), noise(4, 3), noise(4, 3, seed=1)
    with torch.no_grad():
        y, vjp = layer.value_and_vjp(x, layer.effective_tensors(), x.dtype)
        assert torch.equal(y, layer(x))
        expected = (dense(layer, x).mT @ u[:, :, None])[:, :, 0]
        for count in (4, 2, 4):
            torch.testing.assert_close(vjp(u[:count].clone()), expected[:count])


def test_the_default_jvp_is_that_of_the_jacobian_with_the_gradients_of_both():
    layer, x, dx = Wave(), noise(4, 3), noise(4, 3, seed=1)
    theta = tuple(tensor.detach().requires_grad_(True) for tensor in layer.effective_tensors())

    def value_and_jvp(x: Tensor, dx: Tensor, *theta: Tensor) -> Tensor:
        return torch.cat(torch.func.jvp(lambda x: layer._call_with(theta, x), (x,), (dx,)))

    u = noise(8, 3, seed=2)
    output, pullback = layer.jvp_and_pullback(torch.cat([x, dx]), theta)
    of_z, of_theta = pullback(u.clone())
    expected, vjp = torch.func.vjp(value_and_jvp, x, dx, *theta)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(expected[4:], (dense(layer, x) @ dx[:, :, None])[:, :, 0])
    of_x, of_dx, *of_parameters = vjp(u)
    torch.testing.assert_close((of_z, *of_theta), (torch.cat([of_x, of_dx]), *of_parameters))


def test_the_tensors_given_are_those_used():
    layer, x = Wave(), noise(2, 3)
    other = tuple(2 * tensor.detach() for tensor in layer.effective_tensors())
    with torch.no_grad():
        y, _ = layer.value_and_vjp(x, other, x.dtype)
    torch.testing.assert_close(y, torch.sin(0.6 * x + 0.8 * x.cumsum(1)))


def test_a_branch_with_such_a_layer_has_its_defaults():
    branch = Branch(NormalisedLinear(3, 3).double(), Wave())
    assert not branch.supports_bfloat16
    assert branch.intermediate_values(1) == 0
    assert branch.lipschitz_bound(1) == pytest.approx(10 * branch.layers()[0].lipschitz_bound(1))
    tensors = branch.effective_tensors()
    again = unflatten(tensors, flatten(tensors))
    assert [len(own) for own in again] == [2, 2]
    assert all(a is b for a, b in zip(flatten(tensors), flatten(again), strict=True))


def test_a_layer_without_a_bound_cannot_be_made():
    class Unproven(LipschitzLayer):
        def forward(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(TypeError, match=r"abstract method '?lipschitz_bound"):
        Unproven()


@every_layer
def test_closed_products_with_the_transposed_jacobian(name):
    case = LAYERS[name]
    layer, x = move_all_parameters(case.build()).eval(), noise(3, *case.shape)
    with torch.no_grad():
        expected_y, expected = LipschitzLayer.value_and_vjp(layer, x.clone(), tuple(layer.parameters()), x.dtype)
        y, vjp = layer.value_and_vjp(x.clone(), layer.effective_tensors(), x.dtype)
    u = noise(*y.shape, seed=1)
    torch.testing.assert_close(y, expected_y, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(vjp(u.clone()), expected(u), rtol=1e-9, atol=1e-11)


@every_layer
def test_closed_products_with_the_jacobian_and_their_gradients(name):
    case = LAYERS[name]
    layer, z = move_all_parameters(case.build()).eval(), noise(6, *case.shape)
    parameters = tuple(layer.parameters())
    expected, expected_pullback = LipschitzLayer.jvp_and_pullback(layer, z, parameters)
    tensors = layer.effective_tensors()
    with torch.no_grad():
        output, pullback = layer.jvp_and_pullback(z, tensors)
        torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-11)
        u = noise(*output.shape, seed=1)
        of_z, of_tensors = pullback(u.clone())
    expected_of_z, expected_of_parameters = expected_pullback(u)
    torch.testing.assert_close(of_z, expected_of_z, rtol=1e-8, atol=1e-10)
    pairs = [(t, c) for t, c in zip(flatten(tensors), flatten(of_tensors), strict=True) if t.requires_grad]
    if pairs:
        tensors_of, cotangents = zip(*pairs, strict=True)
        of_parameters = torch.autograd.grad(tensors_of, parameters, cotangents, materialize_grads=True)
        torch.testing.assert_close(of_parameters, expected_of_parameters, rtol=1e-8, atol=1e-10)


@every_layer
@pytest.mark.parametrize("closed", [True, False])
def test_a_pullback_may_be_called_again_and_with_tensors_held_fixed(name, closed):
    case = LAYERS[name]
    layer, z = move_all_parameters(case.build()).eval(), noise(6, *case.shape)
    made = layer.effective_tensors() if closed else tuple(layer.parameters())
    flat = [tensor.detach().requires_grad_() for tensor in flatten(made)]
    method = type(layer).jvp_and_pullback if closed else LipschitzLayer.jvp_and_pullback
    with torch.no_grad():
        output, pullback = method(layer, z, unflatten(made, iter(flat)))
        u = noise(*output.shape, seed=1)
        first, *of_first = flatten(pullback(u.clone()))
        for tensor in flat:
            tensor.requires_grad_(False)
        fixed, *of_fixed = flatten(pullback(u.clone()))
        for tensor in flat:
            tensor.requires_grad_()
        again, *of_again = flatten(pullback(u.clone()))
    assert of_fixed == [None] * len(flat)
    torch.testing.assert_close((first, first), (fixed, again), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(of_first, of_again, rtol=1e-12, atol=1e-13)
