"""Steps that are not finite: without effect on anything that is kept, found late, and named as if found at once."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from acf.errors import InputError, TrainingError
from acf.training.checkpoint import NAME
from acf.training.finite import FiniteSteps
from tests.training.trainers import CPU, trainer

INFINITE, NAN, ONE = (torch.tensor(value) for value in (torch.inf, torch.nan, 1.0))


@pytest.mark.parametrize(("loss", "norm"), [(NAN, ONE), (ONE, NAN), (INFINITE, ONE), (ONE, INFINITE), (-INFINITE, ONE)])
def test_the_first_bad_step_is_remembered_and_all_later_ones_are_without_effect(loss: Tensor, norm: Tensor) -> None:
    steps = FiniteSteps(10, CPU)
    for _ in range(3):
        assert float(steps.observe(ONE, ONE)) == 0
    assert steps.first_bad_step() is None
    assert float(steps.observe(loss, norm)) == 1
    assert float(steps.observe(ONE, ONE)) == 1
    assert steps.first_bad_step() == 13


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_bad_gradient_reaches_neither_weights_nor_optimiser_nor_a_checkpoint(tmp_path: Path, accumulate: int) -> None:
    """The host looks after step 8 only; the gradient is bad in step 3, and when that is computed again."""
    run = trainer(tmp_path, accumulate=accumulate, validate_every=80, steps=80)
    name, parameter = list(run.flow.named_parameters())[-1]
    calls, kept = 0, {}

    def broken(gradient: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return gradient * torch.nan if calls == 4 * accumulate or calls > 8 * accumulate else gradient

    original = run._gradient_step

    def observed(rate: float) -> None:
        kept[run.step] = copy.deepcopy((list(run.flow.parameters()), run.optimiser.state_dict()["state"]))
        original(rate)

    parameter.register_hook(broken)
    run._gradient_step = observed  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=rf"^test: step 3: the gradient of {name} is not finite\. There is no"):
        run.run()
    assert run.step == 8
    assert not (tmp_path / NAME).exists()
    weights, state = kept[3]
    for before, after in zip(weights, run.flow.parameters(), strict=True):
        assert torch.equal(before, after)
    for index, values in run.optimiser.state_dict()["state"].items():
        assert all(torch.equal(value, state[index][key]) for key, value in values.items())
    assert all(tensor.isfinite().all() for tensor in run.average.state_dict().values())
    assert not all(torch.equal(a, b) for a, b in zip(kept[2][0], weights, strict=True))


def test_the_noise_of_the_bad_step_is_drawn_again(tmp_path: Path) -> None:
    run = trainer(tmp_path, validate_every=80, steps=80)
    seen = []
    original = run._gradient._input

    def remembered(step: int, index: int) -> tuple[Tensor, Tensor | None]:
        x, labels = original(step, index)
        seen.append((step, x.clone()))
        return x, labels

    run._gradient._input = remembered  # type: ignore[method-assign]
    bias = next(parameter for name, parameter in run.flow.named_parameters() if name.endswith("bias"))
    bias.register_hook(lambda gradient: gradient * (torch.nan if len(seen) >= 6 else 1))
    with pytest.raises(TrainingError, match="step 5"):
        run.run()
    assert [step for step, _ in seen] == [*range(8), 5]
    assert torch.equal(seen[5][1], seen[8][1])


def test_images_with_too_many_grey_levels_are_refused(tmp_path: Path) -> None:
    run = trainer(tmp_path, model={"levels": 16})
    with pytest.raises(InputError, match="16 grey levels, 0 to 15, got the value 16"):
        run.run()
