"""Layers and their explicit derivatives on batches without samples."""

import pytest
import torch

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
    layer.value_and_jvp(torch.cat([x, x]), tensors).sum().backward()
    assert all(p.grad is None or not p.grad.any() for p in layer.parameters())
    with torch.no_grad():
        value, vjp = layer.value_and_vjp(x.detach(), tensors, x.dtype)
        assert value.shape == shape
        assert vjp(torch.zeros_like(value)).shape == x.shape
    assert not any(part.initialised for part in layer.modules() if hasattr(part, "initialised"))
