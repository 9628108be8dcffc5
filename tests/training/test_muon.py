"""Muon: the directions of its steps, what they do not depend on, and steps that are to change nothing."""

import pytest
import torch
from torch import Tensor, nn

import acf
from acf.lipschitz.attention.self_attention import SelfAttention
from acf.lipschitz.normalised import Normalised
from acf.lipschitz.normalised_conv import NormalisedConv2d
from acf.lipschitz.normalised_linear import NormalisedLinear
from acf.lipschitz.orthogonal_linear import OrthogonalLinear
from acf.settings.config import TrainingConfig
from acf.training.muon import Muon, orthogonalised
from acf.training.optimiser import JointOptimiser, build_optimiser, scale_down, set_learning_rate

SHAPES = [(6, 6), (4, 9), (9, 4), (5, 3, 3, 3), (8, 2, 1, 1)]


def parameters(shapes: list[tuple[int, ...]] = SHAPES, seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in shapes]


def gradients(step: int) -> list[Tensor]:
    return [p.detach() for p in parameters(seed=step + 1)]


def moved(optimiser: torch.optim.Optimizer, weights: list[nn.Parameter], given: list[Tensor]) -> list[Tensor]:
    before = [p.detach().clone() for p in weights]
    for p, gradient in zip(weights, given, strict=True):
        p.grad = gradient.clone()
    optimiser.step()
    return [p.detach() - b for p, b in zip(weights, before, strict=True)]


@pytest.mark.parametrize("shape", [(3, 5, 8), (3, 8, 5), (6, 6), (1, 4)])
def test_all_singular_values_become_nearly_one_and_directions_stay(shape: tuple[int, ...]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    result = u.mT @ orthogonalised(matrices) @ vh.mT
    values = result.diagonal(dim1=-2, dim2=-1)
    assert (s / s.square().sum(-1, keepdim=True).sqrt()).min() > 0.01  # below, five steps are too few
    assert values.min() > 0.6
    assert values.max() < 1.25
    assert (result - torch.diag_embed(values)).abs().max() < 1e-12


def test_zero_matrices_stay_zero() -> None:
    assert not orthogonalised(torch.zeros(2, 3, 4)).any()


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_steps_do_not_depend_on_the_size_of_gradients(scale: float) -> None:
    small, large = parameters(), parameters()
    a, b = Muon(small, lr=0.1), Muon(large, lr=0.1)
    for step in range(3):
        one = moved(a, small, gradients(step))
        other = moved(b, large, [scale * g for g in gradients(step)])
        torch.testing.assert_close(one, other)


def test_steps_turn_with_the_gradients() -> None:
    q, r = (torch.linalg.qr(g)[0] for g in (gradients(7)[0], gradients(8)[0]))
    plain, turned = parameters([(6, 6)]), parameters([(6, 6)])
    a, b = Muon(plain, lr=0.1), Muon(turned, lr=0.1)
    for step in range(3):
        gradient = gradients(step)[0]
        (one,), (other,) = moved(a, plain, [gradient]), moved(b, turned, [q @ gradient @ r])
        torch.testing.assert_close(q @ one @ r, other)


def test_steps_are_those_of_torch_which_takes_one_matrix_at_a_time_in_bfloat16() -> None:
    ours, theirs = parameters(SHAPES[:3]), parameters(SHAPES[:3])
    a = Muon(ours, lr=0.1, momentum=0.9)
    b = torch.optim.Muon(theirs, lr=0.1, momentum=0.9, weight_decay=0.0)
    for step in range(4):
        for one, other in zip(moved(a, ours, gradients(step)[:3]), moved(b, theirs, gradients(step)[:3]), strict=True):
            assert (one - other).norm() < 0.05 * other.norm()  # bfloat16 has 8 bits


def test_a_kernel_is_a_matrix_and_stacking_mixes_nothing() -> None:
    together = [*parameters(), *parameters(seed=5)]
    optimiser = Muon(together, lr=0.1)
    alone = [nn.Parameter(p.detach().clone().flatten(1)) for p in together]
    optimisers = [Muon([p], lr=0.1) for p in alone]
    for step in range(3):
        given = [*gradients(step), *gradients(step + 20)]
        moves = moved(optimiser, together, given)
        for p, one, gradient, move in zip(alone, optimisers, given, moves, strict=True):
            torch.testing.assert_close(moved(one, [p], [gradient.flatten(1)])[0], move.flatten(1))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_found_bad_changes_nothing_now_or_later(bad: float) -> None:
    clean, masked = parameters(), parameters()
    a, b = Muon(clean, lr=0.1), Muon(masked, lr=0.1)
    for step in range(3):
        b.found_inf = torch.ones(())
        assert not any(move.any() for move in moved(b, masked, [bad * g for g in gradients(9)]))
        b.found_inf = torch.zeros(())
        torch.testing.assert_close(moved(a, clean, gradients(step)), moved(b, masked, gradients(step)), rtol=0, atol=0)


def test_no_gradient_is_a_gradient_of_zero() -> None:
    weights = parameters([(4, 9), (4, 9), (3, 3)])
    optimiser = Muon(weights, lr=0.1)
    before = [p.detach().clone() for p in weights]
    weights[0].grad = torch.ones_like(weights[0])
    optimiser.step()
    assert [torch.equal(p, b) for p, b in zip(weights, before, strict=True)] == [False, True, True]


def test_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got a parameter of shape \(3,\)"):
        Muon([nn.Parameter(torch.zeros(3))], lr=0.1)


def small_flow() -> acf.Flow:
    attention = {"kind": "sinkhorn", "heads": 2}
    return acf.build({"shape": (1, 8, 8), "blocks": [2], "idim": 8, "fc_blocks": 1, "attention": attention})


def normalised(flow: acf.Flow) -> list[Normalised]:
    return [m for m in flow.modules() if isinstance(m, Normalised)]


def test_weights_are_scaled_down_to_their_coefficients_and_never_up() -> None:
    torch.manual_seed(0)
    layers = [
        *(NormalisedConv2d(3, 5, 3, (4, 4), coefficient=c) for c in (0.9, 0.5, 0.9)),
        *(NormalisedConv2d(4, 2, 1, (4, 4)), NormalisedLinear(6, 3), OrthogonalLinear(4, 6), NormalisedLinear(3, 3)),
    ]
    with torch.no_grad():
        for layer, factor in zip(layers, (3.0, 3.0, 0.3, 3.0, 3.0, 3.0, 0.0), strict=True):
            layer.weight.mul_(factor)
    used = [layer.effective_weight().detach() for layer in layers]
    before = [layer.weight.detach().clone() for layer in layers]
    scale_down(layers, found_inf=torch.ones(()))
    assert all(torch.equal(layer.weight, b) for layer, b in zip(layers, before, strict=True))
    scale_down(layers, found_inf=torch.zeros(()))
    for layer, weight in zip(layers, used, strict=True):
        torch.testing.assert_close(layer.weight.detach(), weight)
        torch.testing.assert_close(layer.effective_weight().detach(), weight)


def test_a_step_leaves_no_weight_above_its_coefficient() -> None:
    flow = small_flow()
    config = TrainingConfig.model_validate({"optimiser": "muon", "muon": {"learning_rate": 0.5}})
    optimiser = build_optimiser(flow, config)
    for layer in normalised(flow):
        layer.weight.grad = -layer.weight.detach()
    optimiser.step()
    for layer in normalised(flow):
        assert 0.99 * layer.coefficient < layer.estimated_norm() < 1.0001 * layer.coefficient


def test_every_parameter_has_one_optimiser_and_rates_keep_their_ratio() -> None:
    flow = small_flow()
    config = TrainingConfig.model_validate(
        {"optimiser": "muon", "learning_rate": 0.02, "muon": {"learning_rate": 0.05}}
    )
    optimiser = build_optimiser(flow, config)
    assert isinstance(optimiser, JointOptimiser)
    groups = [{id(p) for p in group["params"]} for group in optimiser.param_groups]
    assert groups[0] == {id(layer.weight) for layer in normalised(flow)}
    assert groups[0] | groups[1] == {id(p) for p in flow.parameters()}
    assert not groups[0] & groups[1]
    set_learning_rate(optimiser, 0.01)
    assert [group["lr"] for group in optimiser.param_groups] == pytest.approx([0.025, 0.01])


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_attention_may_have_a_learning_rate_of_its_own(optimiser: str) -> None:
    attention = {"kind": "sinkhorn", "position": "relative", "join": "convex"}
    flow = acf.build({"shape": (1, 4, 4), "levels": 17, "blocks": [2], "idim": 8, "attention": attention})
    settings = {"optimiser": optimiser, "learning_rate": 0.02, "muon": {"learning_rate": 0.05}, "attention_rate": 3.0}
    made = build_optimiser(flow, TrainingConfig.model_validate(settings))
    set_learning_rate(made, 0.01)
    rates = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
    assert rates.keys() == {id(p) for p in flow.parameters()}
    within = [m for m in flow.modules() if isinstance(m, SelfAttention)]
    attending = {id(p): p for layer in within for p in layer.parameters()}
    assert len(within) == 2
    moved = {id(layer.weight) for layer in normalised(flow)} if optimiser == "muon" else set()
    for name, p in flow.named_parameters():
        expected = (0.025 if id(p) in moved else 0.01) * (3.0 if id(p) in attending else 1.0)
        assert rates[id(p)] == pytest.approx(expected), name
    for p in flow.parameters():
        p.grad = torch.ones_like(p)
    made.step()
    state = made.state_dict()
    again = build_optimiser(flow, TrainingConfig.model_validate(settings))
    again.load_state_dict(state)
    set_learning_rate(again, 0.01)
    assert {id(p): group["lr"] for group in again.param_groups for p in group["params"]} == rates
