"""Derivatives that a layer has in closed form against those that the base class has by automatic differentiation."""

import pytest
import torch

from acf.lipschitz.layer import LipschitzLayer
from tests.building_blocks.layers import LAYERS
from tests.building_blocks.noise import noise
from tests.building_blocks.weights import move_all_parameters

every_layer = pytest.mark.parametrize("name", LAYERS)


@every_layer
def test_products_with_the_transposed_jacobian(name):
    case = LAYERS[name]
    layer, x = move_all_parameters(case.build()).eval(), noise(3, *case.shape)
    with torch.no_grad():
        expected_y, expected = LipschitzLayer.value_and_vjp(layer, x.clone(), tuple(layer.parameters()), x.dtype)
        y, vjp = layer.value_and_vjp(x.clone(), layer.effective_tensors(), x.dtype)
    u = noise(*y.shape, seed=1)
    torch.testing.assert_close(y, expected_y, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(vjp(u.clone()), expected(u), rtol=1e-9, atol=1e-11)


@every_layer
def test_products_with_the_jacobian(name):
    case = LAYERS[name]
    layer, z = move_all_parameters(case.build()).eval(), noise(6, *case.shape)
    expected = LipschitzLayer.value_and_jvp(layer, z, tuple(layer.parameters()))
    torch.testing.assert_close(layer.value_and_jvp(z, layer.effective_tensors()), expected, rtol=1e-9, atol=1e-11)
