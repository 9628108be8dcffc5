"""Monotone blocks: the rotated graph of a contraction, with the certificate, estimator and gradients of one."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import acf
from acf.errors import ConvergenceError, DerivativeError, InputError, NotContractiveError
from acf.flows.exported import exported_transform
from acf.flows.forward_error import log_prob_error
from acf.flows.logdet import exact_log_det
from acf.flows.monotone import EVALUATION_RESIDUAL, SQRT2, MonotoneBlock
from acf.lipschitz.branch import Branch
from acf.lipschitz.layer import LipschitzLayer
from acf.lipschitz.normalised import Normalised
from tests.building_blocks.bijections import make_flow, make_moved_flow
from tests.building_blocks.blocks import BLOCK_KINDS, make_block
from tests.building_blocks.noise import noise
from tests.building_blocks.settings import with_attention
from tests.building_blocks.weights import bring_norms_to_limits, move_all_parameters

SHAPE = (2, 2, 2)
every_kind = pytest.mark.parametrize("kind", BLOCK_KINDS)


def made(kind: str = "conv", **settings: Any) -> MonotoneBlock:
    torch.manual_seed(0)
    block = make_block(SHAPE, block="monotone", **(BLOCK_KINDS[kind] | settings))
    assert isinstance(block, MonotoneBlock)
    return bring_norms_to_limits(move_all_parameters(block))


def jacobian(block: MonotoneBlock, x: Tensor) -> Tensor:
    return torch.autograd.functional.jacobian(lambda t: block.transform(t).flatten(), x).reshape(x.numel(), -1)


class Scaled(LipschitzLayer):
    """x -> factor x."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x

    def lipschitz_bound(self, n_tokens: int) -> float:
        return abs(float(self.factor.detach()))


class Affine(LipschitzLayer):
    """x -> A x + bias on maps of one position."""

    def __init__(self, matrix: Tensor, bias: float) -> None:
        super().__init__()
        self.matrix, self.bias = nn.Parameter(matrix), bias

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("ij,bjhw->bihw", self.matrix, x) + self.bias

    def lipschitz_bound(self, n_tokens: int) -> float:
        return float(torch.linalg.matrix_norm(self.matrix.detach(), 2))


def scaled(factor: float) -> MonotoneBlock:
    config = make_flow((1, 2, 2)).config
    return MonotoneBlock(Scaled(factor), (1, 2, 2), config.training_log_det, config.evaluation_log_det)  # type: ignore[arg-type]


@pytest.mark.parametrize("factor", [-0.9, -0.3, 0.0, 0.5, 0.9])
def test_both_ends_of_the_range_of_gains_are_attained(factor: float) -> None:
    block, x = scaled(factor).eval(), noise(3, 1, 2, 2)
    gain = (1 - factor) / (1 + factor)
    assert torch.allclose(block.transform(x), gain * x, atol=1e-9)
    assert torch.allclose(block.solve(gain * x).x, x, atol=1e-9)


@pytest.mark.parametrize("values", [2, 8, 64])
@pytest.mark.parametrize("bias", [0.0, 10.0])
def test_iterations_end_at_the_size_of_rounding(values: int, bias: float) -> None:
    config = make_flow((1, 2, 2)).config
    shape, factor = (values, 1, 1), 0.98
    rotation = torch.linalg.qr(torch.randn(values, values, generator=torch.Generator().manual_seed(0)))[0]
    signs = torch.ones(values)
    signs[::2] = -1
    for matrix in (-factor * torch.eye(values), factor * rotation * signs @ rotation.T):
        branch = Branch(Affine(matrix, bias))
        block = MonotoneBlock(branch, shape, config.training_log_det, config.evaluation_log_det).eval()
        found = block.centre(torch.randn(200, *shape, generator=torch.Generator().manual_seed(1)))
        assert found.evaluations.max() < 500
        assert found.x.isfinite().all()


@every_kind
def test_the_value_is_the_rotated_graph_of_the_branch(kind: str) -> None:
    block, w = made(kind).eval(), noise(4, *SHAPE)
    with torch.no_grad():
        g = block.branch(w)
        assert torch.allclose(block.transform((w + g) / SQRT2), (w - g) / SQRT2, atol=1e-10)
        assert torch.allclose(block.inverse((w - g) / SQRT2), (w + g) / SQRT2, atol=1e-10)


@every_kind
def test_gains_lie_within_the_certified_range(kind: str) -> None:
    block = made(kind).eval()
    bound = block.lipschitz_bound()
    assert bound < 1
    for x in noise(3, *SHAPE):
        gains = torch.linalg.svdvals(jacobian(block, x.unsqueeze(0)))
        assert gains.max() <= (1 + bound) / (1 - bound)
        assert gains.min() >= (1 - bound) / (1 + bound)


@pytest.mark.parametrize(
    "kind", ["conv", "sinkhorn", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("dense", "fc"))]
)
@pytest.mark.parametrize("training", [True, False])
def test_gradients_with_exact_log_determinants_are_those_of_finite_differences(kind: str, training: bool) -> None:
    exact = {"estimator": "exact", "solve_residual": 1e-13}
    block = made(kind, training_log_det=exact, evaluation_log_det={"estimator": "exact"}).train(training)
    x, weights = noise(3, *SHAPE), noise(3, *SHAPE, seed=1)

    def loss(x: Tensor) -> Tensor:
        y, log_abs_det = block(x)
        return (weights * y.sin()).sum() + (log_abs_det * weights[:, 0, 0, 0]).sum()

    parameters = [p for p in block.parameters() if p.requires_grad]
    of_x, *of_parameters = torch.autograd.grad(loss(x.requires_grad_()), [x, *parameters])
    with torch.no_grad():
        for tensor, gradient, seed in zip([x, *parameters], [of_x, *of_parameters], range(100), strict=False):
            direction = noise(*tensor.shape, seed=seed) if tensor.dim() else torch.ones_like(tensor)
            start, step = tensor.clone(), 1e-5
            sides = []
            for side in (1, -1):
                tensor.copy_(start + side * step * direction)
                sides.append(loss(x))
            tensor.copy_(start)
            expected = float(sides[0] - sides[1]) / (2 * step)
            assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("kind", ["conv", "dense", "l2, block", "sinkhorn"])
@pytest.mark.parametrize("neumann", [True, False])
def test_the_explicit_gradient_is_that_of_autograd(kind: str, neumann: bool) -> None:
    x, results = noise(5, *SHAPE), []
    for memory_efficient in (True, False):
        settings = {"neumann_gradient": neumann, "memory_efficient": memory_efficient, "solve_residual": 1e-13}
        block = made(kind, training_log_det=settings).train()
        torch.manual_seed(3)
        start = x.clone().requires_grad_()
        y, log_abs_det = block(start)
        loss = (noise(*SHAPE) * y.sin()).sum() + (log_abs_det * torch.arange(5)).sum()
        results.append((y, log_abs_det, *torch.autograd.grad(loss, [start, *block.parameters()])))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_the_gradient_of_the_estimate_is_unbiased() -> None:
    settings = {"exact_terms": 2, "distribution": "poisson", "parameter": 2.0, "solve_residual": 1e-12}
    block = made("conv", idim=3, kernels=[3, 3], training_log_det=settings).train()
    x = noise(1, *SHAPE).expand(1000, *SHAPE).clone().requires_grad_()
    w = block.eval().centre(noise(1, *SHAPE)).x.requires_grad_()
    (of_w,) = torch.autograd.grad(exact_log_det(block.branch, w, block.log_det_form).sum(), w)
    j = torch.autograd.functional.jacobian(lambda t: block.branch(t).flatten(), w.detach()).reshape(8, 8)
    truth = SQRT2 * torch.linalg.solve(torch.eye(8, dtype=j.dtype) + j.T, of_w.flatten())
    block.train()
    gradients = []
    for seed in range(12):
        torch.manual_seed(seed)
        gradients.append(torch.autograd.grad(block(x)[1].sum(), x)[0].flatten(1))
    draws = torch.stack(gradients).mean(1)  # one length for a batch: batches are the independent draws
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - truth).abs() <= 5 * error + 1e-6).all()


def test_an_iteration_that_stops_early_is_exact_at_a_point_nearby() -> None:
    settings = {"estimator": "exact", "solve_residual": 1e-2}
    block = made("conv", training_log_det=settings, evaluation_log_det={"estimator": "exact"})
    x = 3 * noise(6, *SHAPE)
    with torch.no_grad():
        found = block.train().centre(x)
        y, log_abs_det = block(x)
        nearby = (found.x + block.branch(found.x)) / SQRT2
        moved = (nearby - x).flatten(1).norm(dim=1)
        exact_y, exact_log_abs_det = block.eval()(nearby)
        bound = block.lipschitz_bound()
        truth = block(x)[0]
    assert (moved > 1e-7).any()
    assert (moved <= found.residual / SQRT2).all()
    assert torch.allclose(y, exact_y, atol=1e-10)
    assert torch.allclose(log_abs_det, exact_log_abs_det, atol=1e-10)
    assert ((y - truth).flatten(1).norm(dim=1) <= (1 + bound) / (1 - bound) * found.residual / SQRT2).all()


def test_samples_do_not_see_each_other() -> None:
    block, x = made("sinkhorn").train(), noise(6, *SHAPE)
    block(x)
    with torch.no_grad():
        together = block.transform(x)
        assert torch.allclose(torch.cat([block.transform(part) for part in x.split(1)]), together, atol=1e-12)
        x[2, 0, 0, 0] = torch.nan
        spoilt = block.transform(x)
    others = [0, 1, 3, 4, 5]
    assert spoilt[2].isnan().all()
    assert torch.allclose(spoilt[others], together[others], atol=1e-12)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("bad", [torch.nan, 1e200])
def test_a_sample_without_a_solution_spoils_no_gradient_of_others(training: bool, bad: float) -> None:
    block, x = made("conv").train(training), noise(4, *SHAPE)
    x[1] = bad
    x.requires_grad_()
    torch.manual_seed(0)
    y, log_abs_det = block(x)
    others = [0, 2, 3]
    assert y[others].isfinite().all()
    assert y[1].isnan().all()
    (gradient,) = torch.autograd.grad(y[others].sum() + log_abs_det[others].sum(), x)
    assert gradient[others].isfinite().all()


def test_modes_of_single_layers_stay_as_they_are() -> None:
    block = made("sinkhorn").train()
    layers = list(block.branch)
    layers[0].eval()
    block(noise(2, *SHAPE))
    assert [layer.training for layer in layers] == [False] + [True] * (len(layers) - 1)


@pytest.mark.parametrize("quantity", [0, 1])
def test_second_derivatives_are_refused_with_frozen_parameters(quantity: int) -> None:
    block, x = made("conv").train().requires_grad_(False), noise(2, *SHAPE).requires_grad_()
    (gradient,) = torch.autograd.grad(block(x)[quantity].sum(), x, create_graph=True)
    with pytest.raises(DerivativeError, match="monotone block solves an equation"):
        torch.autograd.grad((gradient * x).sum(), x)


def test_a_branch_that_is_no_contraction_is_named() -> None:
    flow = make_moved_flow((1, 2, 2), block="monotone", actnorm=False)
    layer = next(m for m in flow.modules() if isinstance(m, Normalised))
    layer.weight.data *= 1e3
    layer.left.zero_()  # so that the estimated norm is 0, and nothing is scaled down
    with pytest.raises(ConvergenceError, match=r"block scale 1, block 1: its forward map .* grows|did not converge"):
        flow.log_prob(noise(3, 1, 2, 2).sigmoid())
    with pytest.raises(NotContractiveError, match=r"block scale 1, block 1 is not proven contractive"):
        flow.inverse(noise(3, 4))


def test_the_first_batch_sets_the_scales_once_and_iterates_do_not() -> None:
    torch.manual_seed(0)
    block = make_block(SHAPE, block="monotone", **with_attention("sinkhorn", join="block")).train()
    alone = make_block(SHAPE, **with_attention("sinkhorn", join="block")).branch.train()
    alone.load_state_dict(block.branch.state_dict())
    x = noise(5, *SHAPE)
    block(x)
    alone(SQRT2 * x)
    for key, value in alone.state_dict().items():
        assert torch.allclose(block.branch.state_dict()[key], value, rtol=0, atol=1e-12), key


def test_what_cannot_be_done_is_refused_in_words() -> None:
    flow = make_moved_flow((1, 2, 2), block="monotone")
    x = noise(2, 1, 2, 2).sigmoid()
    with pytest.raises(DerivativeError, match="monotone block solves an equation"):
        torch.func.jacrev(flow.transform)(x)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(flow.log_prob(x).sum(), x, create_graph=True)
    with pytest.raises(DerivativeError, match="monotone block solves an equation"):
        torch.autograd.grad(gradient.sum(), x)
    z = flow.transform(x).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(flow.inverse(z, differentiable=True).sum(), z, create_graph=True)
    with pytest.raises(DerivativeError, match="monotone block solves an equation"):
        torch.autograd.grad(gradient.sum(), z)
    with pytest.raises(InputError, match="monotone blocks"):
        exported_transform(flow)


def test_a_step_of_training_works_as_with_residual_blocks() -> None:
    torch.manual_seed(0)
    flow = make_flow((1, 4, 4), block="monotone", squeeze_first=True, **with_attention("sinkhorn", join="block"))
    optimiser = torch.optim.Adam(flow.parameters(), 1e-2)
    x = torch.rand(64, 1, 4, 4) * torch.rand(1, 4, 4)
    losses = []
    for _ in range(30):
        loss = -flow.train().log_prob(x).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        flow.renormalise()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) / 5 < losses[1] - 1
    acf.tighten(flow.eval())
    assert acf.certify(flow).worst < 1
    assert torch.allclose(flow.inverse(flow.transform(x)), x, atol=1e-3)


@pytest.mark.parametrize("settings", [{}, {"condition": {"classes": 3}}], ids=["images", "conditional"])
def test_the_error_of_log_prob_is_covered(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    exact = {"estimator": "exact"}
    flow = make_moved_flow((1, 2, 2), block="monotone", training_log_det=exact, evaluation_log_det=exact, **settings)
    x = noise(20, 1, 2, 2).sigmoid()
    condition = torch.arange(20) % 3 if settings else None
    with torch.no_grad():
        truth = flow.log_prob(x, condition)
        monkeypatch.setitem(EVALUATION_RESIDUAL, torch.float64, 1e-4)
        error = (flow.log_prob(x, condition) - truth).abs()
    covered = log_prob_error(flow, x, condition)
    assert (error > 1e-7).any()
    assert (error <= 1.05 * covered + 1e-9).all()
    assert covered.max() < 0.1
    assert not flow.training


def test_residual_blocks_leave_no_error_of_log_prob() -> None:
    flow = make_moved_flow((1, 2, 2))
    assert torch.equal(log_prob_error(flow, noise(3, 1, 2, 2).sigmoid()), torch.zeros(3, dtype=torch.float64))
