"""The fast path against the published algorithm: the same numbers for the same probe, in float64."""

import copy

import pytest
import torch
from torch import Tensor, nn

from acf.flows.logdet import RouletteEstimator, WeightedProbe, surrogate, value_and_neumann, value_and_series
from acf.flows.power_series import value_and_log_det
from acf.flows.reference import ReferenceBlock, as_reference
from acf.flows.residual import ResidualBlock
from acf.lipschitz.normalised import Normalised, renormalise
from acf.settings.config import TrainingLogDetConfig
from tests.building_blocks.bijections import make_flow
from tests.building_blocks.blocks import BLOCK_KINDS, make_residual_block
from tests.building_blocks.settings import with_attention
from tests.building_blocks.weights import move_all_parameters

SHAPE = (2, 3, 4)
TIGHT = {"rtol": 1e-9, "atol": 1e-11}
every_kind = pytest.mark.parametrize("kind", BLOCK_KINDS)


def made(kind: str, activation: str = "lipswish") -> ResidualBlock:
    torch.manual_seed(0)
    block = make_residual_block(SHAPE, activation=activation, idim=6, **BLOCK_KINDS[kind])
    return move_all_parameters(block).train()


def inputs(batch: int = 5) -> Tensor:
    return torch.randn(batch, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def results(block: nn.Module, x: Tensor, seed: int = 3) -> tuple[Tensor, ...]:
    """Value, log-determinant, and gradients of one weighting of both in x and all parameters."""
    torch.manual_seed(seed)
    x = x.clone().requires_grad_(True)
    y, log_det = block(x)
    # One weight for all log-determinants: the published algorithm knows no other.
    weights = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(2))
    loss = (weights * y.sin()).sum() + 0.7 * log_det.sum()
    gradients = torch.autograd.grad(loss, [x, *block.parameters()], materialize_grads=True)
    return y.detach(), log_det.detach(), *gradients


@pytest.mark.parametrize(
    ("kind", "activation"),
    [
        (kind, activation)
        for kind in BLOCK_KINDS
        for activation in ("lipswish", "elu", "clipswish", "cpila")
        if activation == "lipswish" or kind not in ("potential", "l2, block")  # which have no activation
    ],
)
def test_a_block_is_that_of_the_published_algorithm(kind: str, activation: str) -> None:
    block = made(kind, activation)
    published = ReferenceBlock(block.branch, SHAPE, block.training_log_det, block.evaluation_log_det).train()
    for seed in (3, 4):
        for a, b in zip(results(block, inputs(), seed), results(published, inputs(), seed), strict=True):
            torch.testing.assert_close(a, b, **TIGHT)


@every_kind
def test_each_sample_may_have_its_own_weight(kind: str) -> None:
    block, x = made(kind), inputs()
    torch.manual_seed(5)
    weighted_probe = RouletteEstimator(30, "poisson", 1e-9, "rademacher").weighted_probe(x, per_sample=False)
    weights = torch.tensor([1.0, -0.5, 0.0, 2.0, 0.3], dtype=x.dtype)
    pairs = []
    for function in (
        lambda x: block._branch_and_log_det_in_training(x, weighted_probe)[1],
        lambda x: published(block, x, weighted_probe),
    ):
        leaf = x.clone().requires_grad_(True)
        pairs.append(
            torch.autograd.grad((weights * function(leaf)).sum(), [leaf, *block.parameters()], materialize_grads=True)
        )
    for a, b in zip(*pairs, strict=True):
        torch.testing.assert_close(a, b, **TIGHT)


def published(block: ResidualBlock, x: Tensor, weighted_probe: WeightedProbe) -> Tensor:
    """value + surrogate - surrogate without gradient, all by automatic differentiation."""
    y, value, neumann = value_and_neumann(block.branch, x, weighted_probe)
    gradient = surrogate(y, x, weighted_probe.probe, neumann)
    return value + gradient - gradient.detach()


@pytest.mark.parametrize("kind", ["none", "l2", "dot", "clip", "sinkhorn"])
def test_a_whole_flow_is_that_of_the_published_algorithm(kind: str) -> None:
    torch.manual_seed(0)
    flow = make_flow((1, 4, 4), blocks=(2, 1), idim=6, **with_attention(kind)).double().train()
    x = torch.rand(6, 1, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        flow(x)  # ActNorm and the scales of attention start here
    losses, gradients = [], []
    for one in (flow, as_reference(flow)):
        torch.manual_seed(7)
        loss = -one.log_prob(x).mean()
        loss.backward()
        losses.append(loss.detach())
        gradients.append([p.grad for p in one.parameters()])
    torch.testing.assert_close(*losses, **TIGHT)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, **TIGHT)


@every_kind
def test_processing_a_batch_in_parts_makes_no_difference(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    block = made(kind)
    whole = results(block, inputs())
    monkeypatch.setattr("acf.lipschitz.kernels.chunks.CACHED", 1)
    for a, b in zip(whole, results(block, inputs()), strict=True):
        torch.testing.assert_close(a, b, **TIGHT)


@every_kind
def test_evaluation_with_a_length_for_each_sample_equals_the_series(kind: str) -> None:
    block, x = made(kind), inputs(9)
    torch.manual_seed(6)
    weighted_probes = RouletteEstimator(2, "geometric", 0.3, "rademacher", probes=4).weighted_probes(x, per_sample=True)
    y, value = value_and_log_det(block.branch, block.log_det_form, x, weighted_probes)
    expected_y, expected = value_and_series(block.branch, x.clone().requires_grad_(True), weighted_probes)
    torch.testing.assert_close(y, expected_y.detach(), **TIGHT)
    torch.testing.assert_close(value, expected.detach(), **TIGHT)


@every_kind
def test_products_may_be_asked_for_the_first_samples_only(kind: str) -> None:
    block, x = made(kind), inputs()
    with torch.no_grad():
        _, vjp = block.branch.value_and_vjp(x, block.branch.effective_tensors(), x.dtype)
        v = torch.randn_like(x)
        torch.testing.assert_close(vjp(v[:2].clone()), vjp(v.clone())[:2], **TIGHT)


@pytest.mark.parametrize("kind", ["conv", "dense", "potential", "fc"])
def test_bfloat16_leaves_the_value_of_the_branch_and_changes_gradients_by_its_rounding(kind: str) -> None:
    block = made(kind).float()
    reduced = copy.deepcopy(block)
    reduced.training_log_det = block.training_log_det.model_copy(update={"bfloat16": True})
    full, half = (results(one, inputs(64).float()) for one in (block, reduced))
    assert torch.equal(full[0], half[0])
    gradients = [torch.cat([g.flatten() for g in some[2:]]) for some in (full, half)]
    assert all(g.dtype == torch.float32 for g in half)
    difference = float((gradients[0] - gradients[1]).norm() / gradients[0].norm())
    assert 0 < difference < 0.03


def test_bfloat16_is_not_used_where_there_is_attention() -> None:
    block = made("sinkhorn").float()
    reduced = copy.deepcopy(block)
    reduced.training_log_det = block.training_log_det.model_copy(update={"bfloat16": True})
    for a, b in zip(results(block, inputs().float()), results(reduced, inputs().float()), strict=True):
        assert torch.equal(a, b)


def saved_bytes(block: ResidualBlock, x: Tensor) -> int:
    """Bytes that wait for the backward pass, apart from parameters."""
    own = {p.data_ptr() for p in block.parameters()}
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        if t.data_ptr() not in own:
            kept[t.data_ptr()] = t.numel() * t.element_size()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        torch.manual_seed(0)
        block(x.clone().requires_grad_(True))
    return sum(kept.values())


@every_kind
def test_memory_for_the_backward_pass_does_not_depend_on_the_number_of_terms(kind: str) -> None:
    kept = []
    for terms in (1, 12):
        block = made(kind)
        block.training_log_det = TrainingLogDetConfig(exact_terms=terms, parameter=1e-9)
        kept.append(saved_bytes(block, inputs(64)))
    assert kept[0] == kept[1]


def test_norms_of_many_maps_at_once_are_those_of_each() -> None:
    def build() -> list[Normalised]:
        torch.manual_seed(0)
        flow = make_flow((2, 4, 4), blocks=(3,), idim=6, fc_blocks=4, **with_attention("l2")).double()
        layers = [m for m in flow.modules() if isinstance(m, Normalised)]
        for layer in layers:
            layer.weight.data.mul_(3).add_(0.01)
        return layers

    together, one_by_one = build(), build()
    renormalise(together, 3)
    for layer in one_by_one:
        layer.renormalise(3)
    for a, b in zip(together, one_by_one, strict=True):
        for name in ("left", "right", "weight"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), **TIGHT)
