"""Derivatives beyond the first gradient: right wherever they are given, refused in words wherever they are not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from acf.errors import DerivativeError
from acf.flows.flow import Flow
from acf.flows.logdet import exact_log_det
from acf.flows.reference import as_reference
from acf.registry import ATTENTIONS
from tests.building_blocks.bijections import make_moved_flow
from tests.building_blocks.blocks import BLOCK_KINDS, make_residual_block
from tests.building_blocks.noise import noise
from tests.building_blocks.settings import with_attention
from tests.building_blocks.weights import bring_norms_to_limits, move_all_parameters

Scalar = Callable[[Tensor], Tensor]
PLAIN = {"memory_efficient": False, "neumann_gradient": False}
ONCE = [
    {"memory_efficient": True, "neumann_gradient": True},
    {"memory_efficient": True, "neumann_gradient": False},
    {"memory_efficient": False, "neumann_gradient": True},
]
FEW = {"exact_terms": 2, "distribution": "geometric", "parameter": 0.7}
X = torch.rand(1, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def made(kind: str, training: dict[str, bool] | None = None) -> Flow:
    """A flow in evaluation mode, or in training mode with these settings of its log-determinant."""
    settings = {"evaluation_log_det": FEW, "training_log_det": FEW | (training or {}), "kernels": [3, 1]}
    flow = make_moved_flow((1, 2, 2), blocks=(1,), fc_blocks=0, **with_attention(kind), **settings)
    return flow.train(training is not None)


def seeded(function: Callable[..., Tensor]) -> Scalar:
    """The sum of the function's values, with the same random numbers in every call."""

    def sum_of_values(x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return function(x).sum()

    return sum_of_values


def log_prob(flow: Flow) -> Scalar:
    return seeded(flow.log_prob)


def gradient(function: Scalar) -> Callable[[Tensor], Tensor]:
    def of(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(function(x), x)[0]

    return of


def differences(function: Callable[[Tensor], Tensor], x: Tensor, step: float = 1e-5) -> Tensor:
    """Central differences (values of x, *shape of the function's value)."""
    moves = step * torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape)
    return torch.stack([(function(x + move) - function(x - move)).detach() / (2 * step) for move in moves])


def assert_near(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a.detach().flatten(), b.flatten(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [*BLOCK_KINDS, "elu"])
def test_evaluation_mode_has_gradient_and_hessian_of_its_value(kind: str) -> None:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"evaluation_log_det": FEW, **BLOCK_KINDS.get(kind, {"activation": "elu"})}
    block = bring_norms_to_limits(move_all_parameters(make_residual_block((2, 1, 2), **settings))).eval()
    function, x = seeded(lambda t: torch.cat([part.flatten() for part in block(t)])), noise(1, 2, 1, 2)
    assert_near(gradient(function)(x), differences(function, x))
    assert_near(torch.autograd.functional.hessian(function, x), differences(gradient(function), x))


@pytest.mark.parametrize(("kind", "training"), [("none", PLAIN), *((kind, None) for kind in ATTENTIONS)])
def test_every_way_of_differentiating_gives_the_same(kind: str, training: dict[str, bool] | None) -> None:
    function = log_prob(made(kind, training))
    first, second = differences(function, X), differences(gradient(function), X).view(4, 4)
    for transform in (torch.func.grad, torch.func.jacrev, lambda f: torch.func.jacfwd(f, randomness="same")):
        assert_near(transform(function)(X), first)
    assert_near(torch.func.grad(lambda x: torch.func.grad(function)(x).square().sum())(X), 2 * second @ first)
    assert_near(torch.autograd.functional.hessian(function, X), second)
    assert_near(torch.func.vmap(function, randomness="same")(X.unsqueeze(0)), function(X).detach())
    with forward_ad.dual_level():
        for enabled in (True, False):
            with torch.set_grad_enabled(enabled):
                out = function(forward_ad.make_dual(X, torch.ones_like(X)))
            assert_near(forward_ad.unpack_dual(out).tangent, first.sum())


@pytest.mark.parametrize("kind", ["none", "dot", "sinkhorn"])
@pytest.mark.parametrize("training", ONCE)
def test_training_mode_refuses_everything_beyond_its_gradient(kind: str, training: dict[str, bool]) -> None:
    flow = made(kind, training)
    function = log_prob(flow)
    parameters = list(flow.contractive_blocks()["scale 1, block 1"].branch.parameters())
    refused = pytest.raises(DerivativeError, match=r"evaluation mode \(flow.eval\(\)\)")
    for ask in (
        lambda: torch.autograd.functional.hessian(function, X),
        lambda: torch.autograd.functional.vhp(function, X, X),
        lambda: torch.autograd.functional.jvp(function, X, X),
        lambda: torch.func.grad(function)(X),
        lambda: torch.func.jvp(function, (X,), (X,)),
        lambda: torch.func.vmap(function, randomness="same")(X.unsqueeze(0)),
    ):
        with refused:
            ask()
    with forward_ad.dual_level(), refused:
        function(forward_ad.make_dual(X, X))
    x = X.clone().requires_grad_()
    (slope,) = torch.autograd.grad(function(x), x, create_graph=True)
    for target in (x, parameters[0], parameters[-1]):
        with refused:
            torch.autograd.grad(slope.square().sum(), target, retain_graph=True)
    with refused:
        slope.square().sum().backward()
    gradients = torch.autograd.grad(function(x), parameters, create_graph=True)
    with refused:
        torch.autograd.grad(sum(g.sum() for g in gradients), x)


@pytest.mark.parametrize("training", ONCE)
def test_a_graph_that_nobody_differentiates_disturbs_nobody(training: dict[str, bool]) -> None:
    flow = made("sinkhorn", training)
    results = []
    for create_graph in (False, True):
        x = X.clone().requires_grad_()
        results.append(
            torch.autograd.grad(
                log_prob(flow)(x), [x, *flow.parameters()], create_graph=create_graph, allow_unused=True
            )
        )
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-12, atol=1e-14)


def test_the_published_algorithm_refuses_too() -> None:
    flow = as_reference(made("l2", {}))
    with pytest.raises(DerivativeError):
        torch.autograd.functional.hessian(log_prob(flow), X)


def test_the_value_of_a_training_flow_may_be_differentiated_twice() -> None:
    flow = made("l2", {})
    for training in ({"memory_efficient": False}, {"memory_efficient": False, "neumann_gradient": False}):
        flow = made("l2", training)
        function = seeded(lambda t, flow=flow: flow(t)[0].square())
        assert_near(torch.autograd.functional.hessian(function, X), differences(gradient(function), X))


@pytest.mark.parametrize("training", [None, PLAIN, *ONCE])
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoints_leave_gradients_as_they_are(training: dict[str, bool] | None, reentrant: bool) -> None:
    flow = made("sinkhorn", training)
    results = []
    for function in (flow.log_prob, lambda x: checkpoint(flow.log_prob, x, use_reentrant=reentrant)):
        flow.zero_grad()
        x = X.clone().requires_grad_()
        seeded(function)(x).backward()
        results.append([x.grad, *(p.grad.clone() for p in flow.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_the_exact_log_determinant_is_differentiable_in_its_input() -> None:
    torch.manual_seed(0)
    block = bring_norms_to_limits(make_residual_block((2, 1, 2))).eval()
    function, x = (lambda t: exact_log_det(block.branch, t).sum()), noise(2, 2, 1, 2)
    assert_near(gradient(function)(x), differences(function, x))
