"""The inverse of residual blocks and flows: error bounds that hold, refusal instead of a wrong answer."""

import pytest
import torch

from acf.errors import ConvergenceError, InputError, NotContractiveError
from acf.flows.fixed_point import invert
from acf.flows.residual import ResidualBlock
from acf.lipschitz.normalised import Normalised
from acf.registry import ATTENTIONS
from tests.building_blocks.bijections import FLOWS, make_flow, make_moved_flow
from tests.building_blocks.blocks import make_residual_block
from tests.building_blocks.settings import with_attention
from tests.building_blocks.weights import bring_norms_to_limits, move_all_parameters

KINDS = ["none", *ATTENTIONS]


def block_at_its_limits(kind: str) -> ResidualBlock:
    torch.manual_seed(0)
    made = make_residual_block((2, 3, 3), **with_attention(kind))
    return bring_norms_to_limits(move_all_parameters(made)).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_residual_blocks_with_known_solution(kind):
    made = block_at_its_limits(kind)
    x = torch.randn(8, 2, 3, 3, dtype=torch.float64)
    with torch.no_grad():
        y = made.transform(x)
    found = made.solve(y, tolerance=1e-10)
    true_error = (found.x - x).flatten(1).norm(dim=1)
    assert bool((true_error <= found.bound + 1e-13).all())
    assert bool((found.bound <= 1.01e-10 * y.flatten(1).norm(dim=1).clamp_min(1)).all())
    assert torch.equal(made.inverse(y), made.solve(y).x)


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_against_double(kind):
    made = block_at_its_limits(kind)
    y = torch.randn(8, 2, 3, 3)
    truth = made.solve(y.double(), tolerance=1e-13).x
    single = made.float().solve(y)
    assert single.x.dtype == single.bound.dtype == torch.float32
    # Weights are rounded, too, which is no error of the inverse: hence the bound of the double solution is not asked.
    assert bool(((single.x - truth).flatten(1).norm(dim=1) <= single.bound + 1e-5).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_has_the_same_inverse_alone_and_in_a_batch(kind, dtype):
    made = block_at_its_limits(kind).to(dtype)
    y = torch.randn(9, 2, 3, 3, dtype=dtype) * torch.logspace(-1, 1, 9, dtype=dtype).view(-1, 1, 1, 1)
    together = made.inverse(y)
    alone = torch.cat([made.inverse(part) for part in y.split(1)])
    torch.testing.assert_close(together, alone, atol=1e-5 if dtype == torch.float32 else 1e-11, rtol=0)


def test_a_block_without_proof_is_refused():
    made = block_at_its_limits("none")
    with torch.no_grad():
        next(part for part in made.modules() if isinstance(part, Normalised)).weight.fill_(torch.nan)
    with pytest.raises(NotContractiveError, match="not below 1"):
        made.solve(torch.zeros(1, 2, 3, 3, dtype=torch.float64))


@pytest.mark.parametrize("name", FLOWS)
def test_invert_reports_the_bound_and_the_evaluations_of_each_block(name):
    case = FLOWS[name]
    made, z = case.build(), case.outputs(3)
    found = made.invert(z)
    blocks = made.contractive_blocks()
    assert list(found.bounds) == list(found.evaluations) == list(blocks)
    for key in blocks:
        assert found.bounds[key].shape == found.evaluations[key].shape == (3,)
        assert 0 <= float(found.bounds[key].max()) < 1e-9
        assert int(found.evaluations[key].min()) >= 1
    assert torch.equal(found.x, made.inverse(z))


def test_reported_evaluations_are_those_of_each_block():
    made = make_moved_flow((1, 4, 4), blocks=(2, 1), squeeze_first=True)
    z = torch.randn(4, 16, dtype=torch.float64)
    counts: dict[str, int] = {}
    for name, part in made.contractive_blocks().items():

        def count(_module: object, inputs: tuple[torch.Tensor], _output: object, name: str = name) -> None:
            counts[name] = counts.get(name, 0) + len(inputs[0])

        part.branch.register_forward_hook(count)
    found = made.invert(z)
    assert counts == {name: int(value.sum()) for name, value in found.evaluations.items()}


def test_reported_bounds_are_those_of_each_block():
    # Through actnorm's inverse an error passes unseen, so each block is compared for the input it was given.
    made = make_moved_flow((1, 4, 4), blocks=(2, 1)).float()
    inputs: dict[str, torch.Tensor] = {}
    for name, part in made.contractive_blocks().items():
        solve = part.solve
        part.solve = lambda y, solve=solve, name=name: solve(inputs.setdefault(name, y))  # type: ignore[method-assign]
    found = made.invert(torch.randn(4, 16))
    for name, part in made.contractive_blocks().items():
        again = invert(part.branch, inputs[name], part.cached_lipschitz_bound())
        assert torch.equal(found.bounds[name], again.bound)
        assert torch.equal(found.evaluations[name], again.evaluations)


def test_an_error_names_the_block():
    torch.manual_seed(0)
    made = make_flow((1, 4, 4), blocks=(2, 1)).double().eval()
    z = torch.zeros(2, 16, dtype=torch.float64)
    z[1, 3] = torch.nan
    last = list(made.contractive_blocks())[-1]
    with pytest.raises(ConvergenceError, match=f"block {last}: cannot invert: 1 of 2 samples"):
        made.invert(z)
    middle = made.contractive_blocks()["scale 1, block 2"]
    middle.branch.register_forward_hook(lambda _module, inputs, _output: 3 * inputs[0])
    with pytest.raises(ConvergenceError, match="block scale 1, block 2: cannot invert: 2 of 2 samples refute"):
        made.inverse(torch.randn(2, 16, dtype=torch.float64))


def test_an_empty_batch_of_a_flow():
    made = make_flow((1, 4, 4))
    assert made.inverse(torch.empty(0, 16)).shape == (0, 1, 4, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_an_inverse_sets_no_scales_of_a_flow_that_waits_for_its_first_batch(kind):
    flow = make_flow((1, 2, 2), **with_attention(kind)).double().train()
    before = {name: value.clone() for name, value in flow.state_dict().items()}
    assert flow.sample(2).shape == (2, 1, 2, 2)
    with pytest.raises(InputError, match=r"first batch.*call eval\(\)"):
        flow.sample(2, differentiable=True)
    assert flow.training
    assert all(module.training for module in flow.modules())
    assert all(torch.equal(value, before[name]) for name, value in flow.state_dict().items())
    flow(torch.rand(8, 1, 2, 2, dtype=torch.float64))
    assert flow.sample(2, differentiable=True).requires_grad
