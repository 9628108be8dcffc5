"""Batches that a flow refuses, before any layer has stored something of them, and those that it must not refuse."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import acf
from acf.flows.actnorm import ActNorm
from acf.flows.logit import Logit
from acf.lipschitz import attention
from acf.registry import ATTENTIONS, resolve
from tests.building_blocks.bijections import make_flow, make_moved_flow
from tests.building_blocks.settings import with_attention

SHAPE = (1, 4, 4)


def with_value(value: float) -> Callable[[Tensor], Tensor]:
    def change(x: Tensor) -> Tensor:
        return x.index_fill(3, torch.tensor([2]), value)

    return change


BAD: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "nan": (with_value(torch.nan), "NaN or infinite"),
    "infinity": (with_value(torch.inf), "NaN or infinite"),
    "minus infinity": (with_value(-torch.inf), "NaN or infinite"),
    "grey levels": (lambda x: 255 * x, "divide"),
    "-1 to 1": (lambda x: 2 * x - 1, r"\(x \+ 1\) / 2"),
    "normalised": (lambda x: (x - 0.4) / 0.2, "undo the normalisation"),
    "float16": (lambda x: x.half(), "float32 but was given float16"),
    "float64": (lambda x: x.double(), "float32 but was given float64"),
}


def images(batch: int = 5) -> Tensor:
    return torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("call", ["forward", "log_prob", "transform"])
def test_a_bad_first_batch_is_refused_and_leaves_no_trace(name: str, call: str) -> None:
    change, words = BAD[name]
    torch.manual_seed(0)
    flow = make_flow(SHAPE, **with_attention("sinkhorn")).train()
    before = {key: value.clone() for key, value in flow.state_dict().items()}
    with pytest.raises(ValueError, match=words):
        getattr(flow, call)(change(images()))
    assert all(torch.equal(value, before[key]) for key, value in flow.state_dict().items())
    assert flow.log_prob(images()).isfinite().all()


def test_the_images_with_nan_are_named() -> None:
    x = images()
    x[3, 0, 1, 1] = torch.nan
    with pytest.raises(ValueError, match=r"1 of 80 that are NaN or infinite, in images 3;"):
        make_flow(SHAPE).log_prob(x)


@pytest.mark.parametrize("alpha", [0.0, 1e-6, 0.05, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_domain_ends_where_the_logit_is_no_longer_finite(alpha: float, dtype: torch.dtype) -> None:
    logit = Logit(alpha)
    low, high = logit.domain(dtype)
    assert low <= 0 < 1 <= high or alpha == 0 < low < high < 1
    inside = torch.tensor([[low, high]], dtype=dtype)
    y, log_abs_det = logit(inside)
    assert y.isfinite().all()
    assert log_abs_det.isfinite().all()
    for end, way in ((low, -torch.inf), (high, torch.inf)):
        beyond = torch.tensor([[end]], dtype=dtype)
        assert not logit(beyond.nextafter(torch.full_like(beyond, way)))[0].isfinite().all()


@pytest.mark.parametrize("alpha", [1e-6, 0.05])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_every_inverse_can_be_mapped_back(alpha: float, dtype: torch.dtype, scale: float) -> None:
    flow = make_moved_flow(SHAPE, logit_alpha=alpha).to(dtype)
    acf.tighten(flow)
    z = scale * torch.randn(6, 16, dtype=dtype, generator=torch.Generator().manual_seed(0))
    assert flow.log_prob(flow.inverse(z)).isfinite().all()


def test_pixels_at_the_ends_of_the_unit_interval_are_accepted() -> None:
    flow = make_flow(SHAPE).eval()
    for value in (0.0, 1.0):
        assert flow.log_prob(torch.full((2, *SHAPE), value)).isfinite().all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_layers_alone_refuse_a_bad_first_batch_and_go_on(value: float) -> None:
    x = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    layers = {kind: resolve(ATTENTIONS, kind, "attention")(4, 2) for kind in ATTENTIONS}
    for layer in (*layers.values(), ActNorm((4, 3, 3)), ActNorm((4, 3, 3), per_value=True)):
        layer.train()
        before = {key: entry.clone() for key, entry in layer.state_dict().items()}
        bad = x.clone()
        bad[2, 1, 0, 2] = value
        if not isinstance(layer, attention.DotProductSelfAttention):  # which has no scales to set
            with pytest.raises(ValueError, match="first batch"):
                layer(bad)
            assert all(torch.equal(entry, before[key]) for key, entry in layer.state_dict().items())
        out = layer(x)
        assert (out[0] if isinstance(out, tuple) else out).isfinite().all()
        assert layer.initialised


def test_a_failure_midway_leaves_every_layer_with_all_of_its_start_or_none() -> None:
    flow = make_flow(SHAPE, (2,)).train()
    started = [part for part in flow.modules() if isinstance(part, ActNorm)]
    block = list(flow.contractive_blocks().values())[1]
    hook = block.register_forward_pre_hook(lambda *_: pytest.fail("out of memory"))
    with pytest.raises(pytest.fail.Exception):
        flow.log_prob(images())
    hook.remove()
    assert [bool(layer.initialised) for layer in started[:3]] == [True, True, False]
    first = started[0].shift.clone()
    assert flow.log_prob(images(7)).isfinite().all()
    assert torch.equal(started[0].shift, first)
    assert all(layer.initialised for layer in started)
