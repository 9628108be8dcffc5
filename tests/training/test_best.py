"""The model of the best validation, where it is asked for."""

import signal
from pathlib import Path

import pytest
import torch
from torch import Tensor

from acf.errors import StoppedError
from acf.flows.certificate import certify_blocks
from tests.training.trainers import SMALL, same, trainer

VALUES = {2: 3.0, 4: 2.5, 6: 2.5, 8: 2.75}
"""Validation bits/dim by number of steps done: that of step 4 is the first of the best."""


@pytest.fixture(autouse=True)
def validations(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """Weights of the flow at each validation, whose outcomes are those of VALUES."""
    seen: list[dict[str, Tensor]] = []

    def measured(flow: torch.nn.Module, *_: object) -> dict[str, Tensor]:
        seen.append({key: tensor.clone() for key, tensor in flow.state_dict().items()})
        return {"bits_per_dim": torch.full((10,), VALUES[2 * len(seen)], dtype=torch.float64)}

    monkeypatch.setattr("acf.training.trainer.validation_measures", measured)
    return seen


def test_the_flow_of_the_best_validation_is_kept(tmp_path: Path, validations: list[dict[str, Tensor]]) -> None:
    run = trainer(tmp_path, SMALL, validate_every=2, keep="best")
    flow, certificate = run.run()
    assert run.kept_step == 4
    parameters = dict(flow.named_parameters())
    assert same(parameters, {key: validations[1][key] for key in parameters})
    assert not same(parameters, {key: validations[3][key] for key in parameters})
    assert not flow.training
    assert certificate.worst == certify_blocks(flow.contractive_blocks()).worst < 1
    assert [row["validation_bits_per_dim"] for row in run.history.rows if row["validation_bits_per_dim"]] == [
        *VALUES.values()
    ]


@pytest.mark.parametrize("stopped_after", [3, 7])
def test_the_best_flow_outlives_an_interruption(
    tmp_path: Path, stopped_after: int, validations: list[dict[str, Tensor]]
) -> None:
    whole = trainer(tmp_path / "whole", SMALL, validate_every=2, keep="best").run()[0].state_dict()
    validations.clear()
    run = trainer(tmp_path / "cut", SMALL, validate_every=2, keep="best")
    original = run._gradient_step

    def step(rate: float) -> None:
        original(rate)
        if run.step + 1 == stopped_after:
            signal.raise_signal(signal.SIGTERM)

    run._gradient_step = step  # type: ignore[method-assign]
    with pytest.raises(StoppedError):
        run.run()
    resumed = trainer(tmp_path / "cut", SMALL, validate_every=2, keep="best")
    assert same(resumed.run()[0].state_dict(), whole)
    assert resumed.kept_step == 4
    finished = trainer(tmp_path / "cut", SMALL, validate_every=2, keep="best")
    assert same(finished.run()[0].state_dict(), whole)


def test_the_last_flow_is_kept_by_default(tmp_path: Path, validations: list[dict[str, Tensor]]) -> None:
    run = trainer(tmp_path, SMALL, validate_every=2)
    flow, _ = run.run()
    assert run.kept_step == 8
    assert same(flow.state_dict(), run.average.module.state_dict())
    parameters = dict(flow.named_parameters())
    assert same(parameters, {key: validations[3][key] for key in parameters})
