"""Layers and their explicit derivatives on batches without samples."""

import pytest
import torch

from acf.lipschitz.layer import flatten
from tests.building_blocks.layers import LAYERS


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_maps_no_samples_to_none(name: str) -> None:
    case = LAYERS[name]
    layer = case.build().train()
    x = torch.zeros(0, *case.shape, dtype=torch.float64, requires_grad=True)
    shape = layer(x).shape
    assert shape[0] == 0
    layer(x).sum().backward()
    tensors = layer.effective_tensors()
    assert all(p.grad is None or not p.grad.any() for p in layer.parameters())
    with torch.no_grad():
        output, pullback = layer.jvp_and_pullback(torch.cat([x, x]).detach(), tensors)
        of_z, of_tensors = pullback(torch.zeros_like(output))
        assert of_z.shape == x.shape
        assert not any(cotangent is not None and cotangent.any() for cotangent in flatten(of_tensors))
        value, vjp = layer.value_and_vjp(x.detach(), tensors, x.dtype)
        assert value.shape == shape
        assert vjp(torch.zeros_like(value)).shape == x.shape
    assert not any(part.initialised for part in layer.modules() if hasattr(part, "initialised"))
