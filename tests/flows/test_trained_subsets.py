"""Gradients under every setting of training and for every set of trained parameters: those of plain differentiation."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from acf.flows.actnorm import ActNorm
from acf.flows.flow import Flow
from acf.flows.residual import ResidualBlock
from acf.registry import ATTENTIONS
from acf.settings.config import TrainingLogDetConfig
from tests.building_blocks.bijections import make_moved_flow
from tests.building_blocks.blocks import BLOCK_KINDS, make_residual_block
from tests.building_blocks.settings import with_attention
from tests.building_blocks.weights import bring_norms_to_limits, move_all_parameters

TIGHT = {"rtol": 1e-9, "atol": 1e-11}
SHAPE = (2, 2, 3)
X = torch.rand(3, 1, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SETTINGS = [
    {"memory_efficient": memory_efficient, "neumann_gradient": neumann_gradient}
    for memory_efficient in (True, False)
    for neumann_gradient in (True, False)
]
every_setting = pytest.mark.parametrize(
    "setting", SETTINGS, ids=lambda setting: ", ".join(name for name, on in setting.items() if on) or "plain"
)


def made_block(kind: str) -> ResidualBlock:
    torch.manual_seed(0)
    return bring_norms_to_limits(move_all_parameters(make_residual_block(SHAPE, **BLOCK_KINDS[kind]))).train()


def made_flow(kind: str, setting: dict[str, bool]) -> Flow:
    few = {"exact_terms": 2, "distribution": "geometric", "parameter": 0.6}
    settings = {"evaluation_log_det": few, "training_log_det": few | setting, "kernels": [3, 1]}
    return make_moved_flow((1, 2, 4), (1, 1), fc_blocks=0, **settings, **with_attention(kind))


def seeded_loss(function: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    """A loss that weighs every value and every log-determinant differently, with the same random numbers always."""
    torch.manual_seed(4)
    y, log_det = function(x)
    draw = torch.Generator().manual_seed(5)
    weights, of_samples = (torch.randn(t.shape, dtype=t.dtype, generator=draw) for t in (y, log_det))
    return (weights * y.sin()).sum() + (of_samples * log_det).sum()


def all_gradients(module: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    return list(torch.autograd.grad(seeded_loss(module, x), [x, *module.parameters()], materialize_grads=True))


@pytest.mark.parametrize("kind", BLOCK_KINDS)
def test_saving_memory_leaves_the_gradient_as_it_is(kind: str) -> None:
    block = made_block(kind)
    x = torch.randn(4, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for terms, neumann in itertools.product((0, 1, 4), (True, False)):
        gradients = []
        for saves in (True, False):
            block.training_log_det = TrainingLogDetConfig(
                exact_terms=terms, parameter=1e-9, neumann_gradient=neumann, memory_efficient=saves
            )
            gradients.append(all_gradients(block, x))
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, **TIGHT)


@every_setting
@pytest.mark.parametrize("kind", ["l2", "sinkhorn"])
def test_parameters_may_be_passed_to_the_flow(kind: str, setting: dict[str, bool]) -> None:
    flow = made_flow(kind, setting).train()
    x = X.clone().requires_grad_()
    passed = {name: (1.1 * p).detach().requires_grad_() for name, p in flow.named_parameters()}
    loss = seeded_loss(lambda t: functional_call(flow, passed, (t,)), x)
    found = torch.autograd.grad(loss, [x, *passed.values()])
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(1.1)
    for a, b in zip(found, all_gradients(flow, X), strict=True):
        torch.testing.assert_close(a, b, **TIGHT)


@every_setting
def test_new_norms_between_forward_and_backward_are_refused_or_change_no_gradient(setting: dict[str, bool]) -> None:
    flow = made_flow("l2", setting).train()
    parameters = list(flow.parameters())
    expected = torch.autograd.grad(seeded_loss(flow, X), parameters)
    loss = seeded_loss(flow, X)
    flow.renormalise()
    try:
        found = torch.autograd.grad(loss, parameters)
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        return
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **TIGHT)


def frozen_sets(flow: Flow) -> dict[str, tuple[set[str], bool]]:
    """Names of the parameters that are trained, and whether x requires grad."""
    names = [name for name, _ in flow.named_parameters()]
    norms = {
        f"{key}.{own}" for key, m in flow.named_modules() if isinstance(m, ActNorm) for own, _ in m.named_parameters()
    }
    blocks = [
        {f"{key}.{own}" for own, _ in block.named_parameters()}
        for key, block in flow.named_modules()
        if block in flow.contractive_blocks().values()
    ]
    return {
        "x alone": (set(), True),
        "actnorm": (norms, False),
        "all but the first block": (set(names) - blocks[0], False),
        "all but the last block": (set(names) - blocks[-1], True),
        "the first block": (blocks[0], False),
        "the last block": (blocks[-1], False),
        "every other parameter": (set(names[::2]), False),
        "the others": (set(names[1::2]), True),
        "one weight": ({next(name for name in names if name.endswith("0.weight"))}, False),
    }


CASES = [("sinkhorn", None), *(("sinkhorn", setting) for setting in SETTINGS), *((kind, {}) for kind in ATTENTIONS)]


@pytest.mark.parametrize(("kind", "setting"), CASES, ids=str)
def test_frozen_parameters_leave_the_gradients_of_the_others(kind: str, setting: dict[str, bool] | None) -> None:
    flow = made_flow(kind, setting or {}).train(setting is not None)
    names = ["x", *(name for name, _ in flow.named_parameters())]
    expected = dict(zip(names, all_gradients(flow, X), strict=True))
    for trained, to_x in frozen_sets(flow).values():
        for name, parameter in flow.named_parameters():
            parameter.requires_grad_(name in trained)
            parameter.grad = None
        x = X.clone().requires_grad_(to_x)
        seeded_loss(flow, x).backward()
        found = {name: t.grad for name, t in [("x", x), *flow.named_parameters()]}
        assert {name for name, grad in found.items() if grad is not None} == trained | ({"x"} if to_x else set())
        for name, grad in found.items():
            if grad is not None:
                torch.testing.assert_close(grad, expected[name], **TIGHT)


@pytest.mark.parametrize("setting", [None, *SETTINGS], ids=str)
def test_nothing_trained_is_nothing_to_differentiate(setting: dict[str, bool] | None) -> None:
    flow = made_flow("sinkhorn", setting or {}).train(setting is not None)
    with torch.no_grad():
        expected = seeded_loss(flow, X)
    loss = seeded_loss(flow.requires_grad_(False), X)
    assert not loss.requires_grad
    torch.testing.assert_close(loss, expected, **TIGHT)
