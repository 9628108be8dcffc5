"""The gradient of inverses and samples: that of finite differences, at any size of the cotangent, or refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from acf.errors import ConvergenceError, DerivativeError, NotContractiveError
from acf.flows.fixed_point import StoppingRule
from acf.flows.flow import Flow
from acf.flows.implicit import solve_adjoint
from acf.lipschitz.normalised import Normalised
from acf.registry import ATTENTIONS
from tests.building_blocks.bijections import BIJECTIONS, make_moved_flow
from tests.building_blocks.noise import noise
from tests.building_blocks.settings import with_attention

SETTINGS: dict[str, dict[str, Any]] = {
    **{kind: with_attention(kind) for kind in ["none", *ATTENTIONS]},
    "in a block of its own": with_attention("sinkhorn", join="block"),
    "elu": {"activation": "elu"},
    "dense": {"branch": "dense", "activation": "clipswish"},
    "two scales": {"blocks": (1, 1), "squeeze_first": True, "factor_out": True},
}
Z = noise(2, 16)


def made(name: str = "l2") -> Flow:
    return make_moved_flow((1, 4, 4), **({"blocks": (1,), "fc_blocks": 1} | SETTINGS[name]))


def rule(lipschitz: float) -> StoppingRule:
    return StoppingRule.proven(lipschitz, torch.float64)


def loss_of(x: Tensor) -> Tensor:
    return (noise(*x.shape, seed=8) * (3 * x).sin()).sum()


def along(function: Callable[[Tensor], Tensor], start: Tensor, direction: Tensor, step: float = 1e-5) -> float:
    """Central difference of a scalar function along a direction."""
    with torch.no_grad():
        return float((function(start + step * direction) - function(start - step * direction)) / (2 * step))


@pytest.mark.parametrize(
    ("name", "training"), [*((name, False) for name in SETTINGS), ("none", True), ("sinkhorn", True)]
)
def test_gradients_of_the_inverse_are_those_of_finite_differences(name: str, training: bool) -> None:
    flow, z = made(name).train(training), Z.clone().requires_grad_()
    x = flow.inverse(z, differentiable=True)
    assert torch.equal(x, flow.inverse(Z))
    of_z, *gradients = torch.autograd.grad(loss_of(x), [z, *flow.parameters()])
    expected = along(lambda t: loss_of(flow.inverse(t)), Z, noise(*Z.shape, seed=1))
    assert float((of_z * noise(*Z.shape, seed=1)).sum()) == pytest.approx(expected, rel=1e-6)
    start = parameters_to_vector(flow.parameters()).detach()

    def moved(values: Tensor) -> Tensor:
        vector_to_parameters(values, flow.parameters())
        return loss_of(flow.inverse(Z))

    # All parameters move together, in a random direction, to which a wrong gradient is hardly at right angles.
    move = noise(len(start))
    expected = along(moved, start, move)
    found = float((parameters_to_vector(gradients) * move).sum())
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("name", ["dot", "sinkhorn", "two scales"])
def test_the_gradient_of_the_inverse_inverts_that_of_the_flow(name: str) -> None:
    flow = made(name)
    x = flow.inverse(Z[:1]).detach()
    forward = torch.autograd.functional.jacobian(flow.transform, x).view(16, 16)
    back = torch.autograd.functional.jacobian(lambda z: flow.inverse(z, differentiable=True), Z[:1]).view(16, 16)
    torch.testing.assert_close(back @ forward, torch.eye(16, dtype=x.dtype), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in BIJECTIONS if not name.startswith("flow")])
def test_every_bijection_undone_has_the_gradient_of_nothing(name: str) -> None:
    case = BIJECTIONS[name]
    bijection, x = case.build(), case.inputs(2).requires_grad_()
    parameters = list(bijection.parameters())
    back = bijection.inverse(bijection.transform(x))
    weights = noise(*back.shape)
    of_x, *others = torch.autograd.grad((weights * back).sum(), [x, *parameters], allow_unused=True)
    torch.testing.assert_close(of_x, weights, rtol=1e-6, atol=1e-6)
    for gradient, parameter in zip(others, parameters, strict=True):
        torch.testing.assert_close(gradient, torch.zeros_like(parameter), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_small_and_large_gradients_are_as_exact(size: float) -> None:
    for dtype, rtol in ((torch.float64, 1e-9), (torch.float32, 1e-3)):
        flow = made("l2").to(dtype)
        z = Z.to(dtype, copy=True).requires_grad_()
        loss = flow.inverse(z, differentiable=True).sum()
        whole, scaled = (
            torch.autograd.grad(loss, z, torch.tensor(s, dtype=dtype), retain_graph=True)[0] for s in (1, size)
        )
        torch.testing.assert_close(scaled / size, whole, rtol=rtol, atol=rtol * float(whole.abs().max()))


def test_samples_with_cotangents_of_zero_and_infinity_stay_apart() -> None:
    j = 0.4 * noise(3, 5, 5) / 5
    c = noise(3, 5)
    c[0], c[2, 1] = 0, torch.inf
    u = solve_adjoint(lambda v: (v.unsqueeze(1) @ j[: len(v)]).squeeze(1), c, rule(0.9))
    assert torch.equal(u[0], torch.zeros(5, dtype=u.dtype))
    torch.testing.assert_close(u[1], torch.linalg.solve(torch.eye(5, dtype=u.dtype) + j[1].T, c[1]))
    assert u[2].isnan().all()


def test_each_sample_is_solved_with_its_own_map() -> None:
    j = torch.linspace(0.0, 0.9, 9, dtype=torch.float64)
    c = noise(9, 3)
    u = solve_adjoint(lambda v: j[: len(v), None] * v, c, rule(0.91))
    torch.testing.assert_close(u, c / (1 + j[:, None]), rtol=1e-11, atol=1e-12)


def test_a_wrong_bound_is_refused_in_the_gradient_too() -> None:
    with pytest.raises(ConvergenceError, match="gradient of the solution of x \\+ g\\(x\\) = y: 2 of 2 samples refute"):
        solve_adjoint(lambda v: -3 * v, noise(2, 4), rule(0.5))


def test_samples_may_train_the_flow() -> None:
    flow = made("sinkhorn")

    def draw(**settings: bool) -> Tensor:
        return flow.sample(3, generator=torch.Generator().manual_seed(1), **settings)

    images = draw(differentiable=True)
    assert torch.equal(images, draw())
    before = float(loss_of(images).detach())
    loss_of(images).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in flow.parameters())
    slope = sum(float(p.grad.square().sum()) for p in flow.parameters())
    with torch.no_grad():
        for p in flow.parameters():
            p.sub_(1e-6 / slope * p.grad)
    assert before - float(loss_of(draw())) == pytest.approx(1e-6, rel=1e-2)


def test_clamped_values_have_no_gradient() -> None:
    flow = make_moved_flow((1, 2, 2), blocks=(1,), fc_blocks=0)
    last = next(m for m in flow.modules() if hasattr(m, "log_scale"))
    with torch.no_grad():
        last.shift.fill_(-1e4)  # every value beyond the largest that images may have
    flow.sample(2, differentiable=True).sum().backward()
    assert all(float(p.grad.abs().max()) == 0 for p in flow.parameters())


def test_without_asking_there_is_no_gradient_and_a_leaf_is_refused() -> None:
    flow, z = made("l2"), Z.clone().requires_grad_()
    for x in (flow.inverse(Z), flow.sample(2), flow.invert(Z).x, flow.inverse(2 * z)):
        assert not x.requires_grad
    with pytest.raises(ValueError, match="pass differentiable=True"):
        flow.inverse(z)
    with torch.no_grad():
        assert not flow.inverse(z).requires_grad
        assert not flow.inverse(z, differentiable=True).requires_grad
    with pytest.raises(RuntimeError, match="does not require grad"):
        flow.sample(2).sum().backward()


def test_frozen_and_passed_parameters() -> None:
    flow = made("dot")
    passed = {name: p.detach().clone().requires_grad_() for name, p in flow.named_parameters()}

    class Inverse(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flow = flow

        def forward(self, z: Tensor) -> Tensor:
            return self.flow.inverse(z, differentiable=True)

    module = Inverse()
    expected = torch.autograd.grad(loss_of(module(Z)), list(flow.parameters()))
    named = {f"flow.{name}": p for name, p in passed.items()}
    for a, b in zip(
        torch.autograd.grad(loss_of(functional_call(module, named, (Z,))), list(passed.values())), expected, strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    names = list(passed)
    for chosen in (names[::2], names[1::3], names[-1:]):
        for name, p in flow.named_parameters():
            p.grad = None
            p.requires_grad_(name in chosen)
        loss_of(module(Z)).backward()
        for (name, p), gradient in zip(flow.named_parameters(), expected, strict=True):
            assert (p.grad is None) == (name not in chosen)
            if p.grad is not None:
                torch.testing.assert_close(p.grad, gradient, rtol=1e-9, atol=1e-11)


def test_everything_beyond_the_gradient_is_refused() -> None:
    flow = made("l2")
    refused = pytest.raises(DerivativeError, match="an inverse can be differentiated once")

    def loss(z: Tensor) -> Tensor:
        return loss_of(flow.inverse(z, differentiable=True))

    for ask in (
        lambda: torch.autograd.functional.hessian(loss, Z),
        lambda: torch.func.grad(loss)(Z),
        lambda: torch.func.jvp(loss, (Z,), (Z,)),
        lambda: torch.func.jvp(flow.inverse, (Z,), (Z,)),
        lambda: torch.func.vmap(lambda z: flow.inverse(z[None]))(Z),
    ):
        with refused:
            ask()
    with forward_ad.dual_level(), refused:
        flow.inverse(forward_ad.make_dual(Z, Z))
    gradient = torch.autograd.grad(loss(Z), list(flow.parameters()), create_graph=True)
    with refused:
        sum(g.square().sum() for g in gradient).backward()


def test_an_unproven_block_is_refused_before_any_gradient() -> None:
    flow = made("none")
    with torch.no_grad():
        next(part for part in flow.modules() if isinstance(part, Normalised)).weight.fill_(torch.nan)
    with pytest.raises(NotContractiveError, match="scale 1, block 1"):
        flow.inverse(Z, differentiable=True)


def test_an_empty_batch_has_an_empty_gradient() -> None:
    flow, z = made("sinkhorn"), torch.empty(0, 16, dtype=torch.float64, requires_grad=True)
    flow.inverse(z, differentiable=True).sum().backward()
    assert z.grad.shape == (0, 16)
    assert all(float(p.grad.abs().sum()) == 0 for p in flow.parameters())
