"""Certificates and tightening: blocks that need no change, blocks that need a little, and flows that are refused."""

import copy
import math

import pytest
import torch
from torch import Tensor

import acf
from acf.errors import NotContractiveError
from acf.flows.certificate import TARGET
from acf.flows.flow import tighten
from acf.lipschitz import ConvexShare
from acf.lipschitz.bounds import norms
from acf.lipschitz.bounds.attack import largest_gain
from tests.building_blocks.bijections import make_flow, make_moved_flow
from tests.building_blocks.blocks import make_residual_block
from tests.building_blocks.settings import with_attention
from tests.building_blocks.weights import bring_norms_to_limits, move_all_parameters, normalised_maps
from tests.lipschitz.defects import HonestResidual

SHAPE = (1, 4, 4)
LARGE = (1, 8, 8)


def images(count: int = 4) -> Tensor:
    return torch.rand(count, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("kind", "only_torus"),
    [
        *(("none", True), ("none", False), ("l2", False), ("dot", False)),
        # The proof on large maps is one of convolutions.
        *(pytest.param(kind, True, marks=pytest.mark.slow) for kind in ("l2", "dot")),
    ],
)
def test_randomised_norms_end_proven_and_hold_under_attack(kind, only_torus, monkeypatch):
    if only_torus:  # as on large maps: proofs some percents above the norms
        monkeypatch.setattr(norms, "DENSE_POSITIONS", 0)
    made = make_moved_flow(LARGE if only_torus else SHAPE, **with_attention(kind))
    torch.manual_seed(1)
    for layer in normalised_maps(made):
        for vector in (layer.left, layer.right):
            vector.normal_().div_(vector.norm())
    assert acf.certify(made).worst > 1
    certificate = tighten(made)
    assert certificate.worst <= TARGET < 1
    assert certificate == acf.certify(made)
    for entry, made_block in zip(certificate.blocks, made.contractive_blocks().values(), strict=True):
        found = largest_gain(made_block.branch, made_block.shape, steps=25, rounds=1, candidates=10)
        assert 0 < found.gain <= entry.upper


def test_norms_just_below_their_coefficient_are_tightened_too(monkeypatch):
    # Proofs above the coefficient by as much as estimates are below it, so that neither alone says how much is missing.
    monkeypatch.setattr(norms, "DENSE_POSITIONS", 0)
    made = make_moved_flow(SHAPE)
    for layer in normalised_maps(made):
        layer.converge_norm(1e-12, 5000)
        with torch.no_grad():
            ratio = layer.stored_norm_bound() / layer.estimated_norm()
            layer.weight.mul_(layer.coefficient / layer.estimated_norm() / ratio.sqrt())
    assert acf.certify(made).worst > 1
    assert tighten(made).worst <= TARGET


def test_blocks_below_the_target_keep_their_outputs():
    torch.manual_seed(0)
    made, x = move_all_parameters(make_flow(SHAPE).double()).eval(), images()
    for layer in normalised_maps(made):
        layer.weight.data.mul_(0.3 * layer.coefficient / float(layer.estimated_norm()))
        layer.converge_norm()
    before, certificate = made.transform(x), acf.certify(made)
    assert certificate.worst < TARGET
    assert tighten(made) == certificate
    assert torch.equal(made.transform(x), before)


def test_tightening_twice_is_tightening_once(monkeypatch):
    monkeypatch.setattr(norms, "DENSE_POSITIONS", 0)
    made, x = make_moved_flow(LARGE), torch.rand(4, *LARGE, dtype=torch.float64)
    first, once = tighten(made), made.transform(x)
    assert tighten(made).worst == pytest.approx(first.worst, rel=1e-3)
    assert torch.allclose(made.transform(x), once, atol=1e-3)


@pytest.mark.parametrize("gamma", [0.2, 1.0])
def test_a_block_that_is_not_contractive_is_refused_by_name(gamma):
    made = make_moved_flow(SHAPE, coefficient=0.99, **with_attention("l2"))
    tighten(made)
    z = made.transform(images()).detach()
    made.inverse(z)
    branch = made.contractive_blocks()["scale 1, block 2"].branch
    place = next(i for i, layer in enumerate(branch) if isinstance(layer, ConvexShare))
    branch[place] = HonestResidual(branch[place].inner, gamma).double()
    certificate = acf.certify(made)
    assert certificate.worst > 1
    assert certificate.worst_block == "scale 1, block 2"
    for refused in (certificate.require, lambda: made.inverse(z), lambda: made.sample(1), lambda: tighten(made)):
        with pytest.raises(NotContractiveError, match="scale 1, block 2"):
            refused()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("number", [pytest.param(1, marks=pytest.mark.slow), 2, 3])  # 2 has all that 1 has
def test_values_that_are_not_finite_are_refused_wherever_they_are(bad, number):
    name = f"scale 1, block {number}"
    finite = make_moved_flow(SHAPE, **with_attention("l2"))
    for key, _ in finite.contractive_blocks()[name].branch.named_parameters():
        made = copy.deepcopy(finite)
        with torch.no_grad():
            made.contractive_blocks()[name].branch.get_parameter(key).view(-1)[0] = bad
        with pytest.raises(NotContractiveError, match=name):
            tighten(made)
        if key.endswith("weight") or (key.endswith("gamma") and math.isnan(bad)):
            certificate = acf.certify(made)
            assert (certificate.worst, certificate.worst_block) == (math.inf, name)
            with pytest.raises(NotContractiveError, match=name):
                made.inverse(torch.zeros(1, 16, dtype=torch.float64))


def test_a_block_that_closing_all_gaps_does_not_make_contractive_is_refused():
    made = make_moved_flow(SHAPE, coefficient=0.99, activation="elu", **with_attention("l2"))
    branch = made.contractive_blocks()["scale 1, block 1"].branch
    place = next(i for i, layer in enumerate(branch) if isinstance(layer, ConvexShare))
    branch[place] = HonestResidual(branch[place].inner, 0.1).double()
    assert 1 < acf.certify(made).worst < 1.1
    with pytest.raises(NotContractiveError, match=r"scale 1, block 1 cannot be proven .*lower model\.coefficient"):
        tighten(made)


@pytest.mark.parametrize("loose", [False, True])
@pytest.mark.parametrize("target", [TARGET, 0.5, 0.1])
def test_a_flow_that_is_proven_contractive_is_never_refused(loose, target):
    """With coefficients of 0.9995 no bound of 0.99 is in reach without changing more than proofs need."""
    made = make_moved_flow(SHAPE, coefficient=0.9995, activation="elu")
    if loose:
        torch.manual_seed(1)
        for layer in normalised_maps(made):
            layer.right.add_(0.01 * torch.randn_like(layer.right))
            layer.right.div_(layer.right.norm())
        assert acf.certify(made).worst > 1
        tighten(made)
    before = acf.certify(made).worst
    assert target < before < 1
    certificate = tighten(made, target)
    certificate.require()
    assert certificate.worst <= before * (1 + 1e-4)
    made.inverse(made.transform(images()).detach())


def change_step(made_block: torch.nn.Module) -> None:
    optimiser = torch.optim.AdamW(made_block.parameters(), lr=0.05)
    made_block.branch(torch.ones(2, *SHAPE, dtype=torch.float64)).square().sum().backward()
    optimiser.step()


def change_load(made_block: torch.nn.Module) -> None:
    torch.manual_seed(5)
    made_block.load_state_dict(make_residual_block(SHAPE).state_dict())


def change_data(made_block: torch.nn.Module) -> None:
    made_block.branch[1].weight.data.add_(0.1)


def change_buffer(made_block: torch.nn.Module) -> None:
    made_block.branch[1].slack.fill_(1.2)


def change_type(made_block: torch.nn.Module) -> None:
    made_block.to(torch.float16).to(torch.float64)


def change_object(made_block: torch.nn.Module) -> None:
    made_block.branch[1].weight = torch.nn.Parameter(2 + made_block.branch[1].weight.detach())


@pytest.mark.parametrize(
    "change",
    [change_step, change_load, change_data, change_buffer, change_type, change_object],
    ids=lambda f: f.__name__,
)
def test_the_cached_bound_follows_every_change(change):
    torch.manual_seed(0)
    made = bring_norms_to_limits(make_residual_block(SHAPE))
    before = made.cached_lipschitz_bound()
    assert before == made.cached_lipschitz_bound() == made.lipschitz_bound()
    change(made)
    assert made.lipschitz_bound() != before
    assert made.cached_lipschitz_bound() == made.lipschitz_bound()
    assert copy.deepcopy(made).cached_lipschitz_bound() == made.lipschitz_bound()
