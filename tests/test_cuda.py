"""CUDA computes what the CPU computes, and a training step never waits for it; skipped where there is no CUDA device.

`pytest tests/test_cuda.py` runs them where there is one.
"""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import acf
from acf.registry import ATTENTIONS
from acf.runs.device import select_device
from acf.training.average import MovingAverage
from tests.building_blocks.bijections import CLIPSWISH, make_flow, make_moved_flow
from tests.building_blocks.noise import NoiseOfTheHost
from tests.building_blocks.settings import with_attention

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

SHAPE = (1, 8, 8)
DEVICE = "cuda"
FLOWS: dict[str, dict[str, Any]] = {
    "resflow": {},
    "idensenet": CLIPSWISH,
    **{f"{kind} in blocks of its own": with_attention(kind, join="block") for kind in sorted(ATTENTIONS)},
    "l2 within branches": with_attention("l2"),
    "sinkhorn within branches": with_attention("sinkhorn", join="concatenate"),
    "sinkhorn with position": with_attention("sinkhorn", join="block", position="relative", position_start="shifts"),
    "sinkhorn in windows": with_attention("sinkhorn", join="block", position="relative", window=2),
}
every_flow = pytest.mark.parametrize("settings", FLOWS.values(), ids=list(FLOWS))


def images(batch: int = 6) -> Tensor:
    return torch.rand(batch, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-9) -> bool:
    """Whether two results of different devices agree relative to the size of the first."""
    return bool((ours - theirs.to(ours.device)).norm() <= tolerance * max(1.0, float(ours.norm())))


def two_steps(flow: acf.Flow) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of the second of two training steps, and all parameters and their gradients after it."""
    torch.manual_seed(1)
    optimiser = torch.optim.SGD(flow.train().parameters(), 1e-2)
    x = images().to(next(flow.parameters()).device)
    for _ in range(2):
        optimiser.zero_grad()
        loss = -flow.log_prob(x).mean()
        loss.backward()
        optimiser.step()
        flow.renormalise()
    gradients = {f"gradient of {name}": p.grad for name, p in flow.named_parameters() if p.grad is not None}
    return loss.detach(), {**{name: p.detach() for name, p in flow.named_parameters()}, **gradients}


@every_flow
def test_training_steps_are_those_of_the_cpu(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    flow = make_flow(SHAPE, (1, 1), **settings).double()
    on_device = copy.deepcopy(flow).to(DEVICE)
    with NoiseOfTheHost():
        loss, values = two_steps(flow)
        loss_there, values_there = two_steps(on_device)
    assert close(loss, loss_there)
    assert [name for name, value in values.items() if not close(value, values_there[name])] == []


@every_flow
def test_density_inverse_and_certificate_are_those_of_the_cpu(settings: dict[str, Any]) -> None:
    flow = make_moved_flow(SHAPE, (1, 1), **settings)
    acf.tighten(flow)
    on_device = copy.deepcopy(flow).to(DEVICE)
    x = images()
    with NoiseOfTheHost(), torch.no_grad():
        torch.manual_seed(1)
        log_prob = flow.log_prob(x)
        torch.manual_seed(1)
        assert close(log_prob, on_device.log_prob(x.to(DEVICE)))
    z = flow.transform(x).detach()
    assert close(z, on_device.transform(x.to(DEVICE)).detach())
    assert close(x, on_device.inverse(z.to(DEVICE)), 1e-8)
    certificate = acf.certify(on_device)
    assert certificate.worst < 1
    assert certificate.worst == pytest.approx(acf.certify(flow).worst, rel=1e-9)


@every_flow
def test_float32_is_not_rounded_to_tf32(settings: dict[str, Any]) -> None:
    """TF32 has 11 bits, so that its errors are hundreds of times those of float32."""
    flow = make_moved_flow(SHAPE, (1, 1), **settings)
    exact = flow.transform(images()).detach()
    device = select_device(DEVICE)
    z = flow.float().to(device).transform(images().float().to(device)).detach().double()
    assert close(exact, z, 2e-5)


@every_flow
def test_a_training_step_does_not_wait_for_the_device(settings: dict[str, Any]) -> None:
    """All but the check of pixels, which users' `log_prob` makes and the trainer leaves out."""
    torch.manual_seed(0)
    flow = make_flow(SHAPE, (1, 1), **settings).to(DEVICE).train()
    optimiser = torch.optim.AdamW(flow.parameters(), 1e-3, fused=True)
    average = MovingAverage(flow, 0.9)
    x = images().float().to(DEVICE)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        (-flow.log_prob_unchecked(x).mean()).backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
        optimiser.step()
        flow.renormalise()
        average.update_parameters(flow)

    step()  # sets scales, and makes what is made once
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
