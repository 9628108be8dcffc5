"""What a training step, an evaluation and a step of the inverse tell a device, on a device without values.

Whatever reads a value on the host would make it wait for a GPU. The few places that do are listed with their reasons;
any other is an error. No operation joins tensors of two devices, and a training step takes no more operations than
benchmarks/operations.py has counted.
"""

import importlib.util
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import acf
from acf.flows.dequantise import dequantise
from acf.flows.fixed_point import invert, iterate_each
from acf.registry import LABELLED_TASKS


def _load_benchmark() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks/operations.py"
    specification = importlib.util.spec_from_file_location("benchmark_operations", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


benchmark = _load_benchmark()
MODELS: dict[str, dict[str, Any]] = benchmark.models()
BUDGETS: dict[str, dict[str, int]] = json.loads(benchmark.RESULT.read_text())["operations"]

# Places that read a value on the host, and what they are told here.
READS_IN_TRAINING: dict[str, bool] = {}
READS_IN_EVALUATION: dict[str, bool] = {}
READS_OF_THE_INVERSE = {
    # The iteration ends when each sample has converged, and samples that have are left out.
    "flows.fixed_point._Iteration.evaluate": True,
    "flows.fixed_point._Iteration._advance": True,
    "flows.fixed_point._Iteration.result": True,
}


def told_by(reads: dict[str, bool]) -> Callable[[str], bool]:
    def told(place: str) -> bool:
        assert place in reads, f"{place} reads a value of the device on the host"
        return reads[place]

    return told


def is_monotone(name: str) -> bool:
    return MODELS[name].get("block") == "monotone"


every_model = pytest.mark.parametrize("name", [name for name in MODELS if "16-16-16" not in name])


@every_model
def test_a_training_step_reads_nothing_on_the_host_and_keeps_to_its_operations(name: str) -> None:
    if is_monotone(name):  # which iterates until its samples have converged
        with pytest.raises(AssertionError, match=r"iteration_together\.iterate_together reads a value"):
            benchmark.step_operations(MODELS[name], told_by(READS_IN_TRAINING))
        return
    found = benchmark.step_operations(MODELS[name], told_by(READS_IN_TRAINING))
    assert not found.meetings
    assert found.count <= BUDGETS[name]["operations"]
    assert found.reads.total() <= BUDGETS[name]["reads"]
    assert found.uploads <= BUDGETS[name]["uploads"]


@pytest.mark.parametrize("task", LABELLED_TASKS)
def test_a_step_with_labels_reads_nothing_on_the_host(task: str) -> None:
    found = benchmark.step_operations(MODELS["acf-l2"], told_by(READS_IN_TRAINING), task)
    assert found.count > 100
    assert not found.meetings
    assert not found.reads


@every_model
def test_evaluation_reads_nothing_on_the_host(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without values nothing converges: one evaluation shows all that an iteration reads.
    monkeypatch.setattr("acf.flows.monotone.iterate_each", partial(iterate_each, max_evaluations=1))
    flow = benchmark.trainer(MODELS[name], tmp_path).flow.eval()
    images = torch.zeros(3, *flow.shape, dtype=torch.uint8, device="meta")
    reads = READS_OF_THE_INVERSE if is_monotone(name) else READS_IN_EVALUATION
    with benchmark.Operations(told_by(reads)) as found, torch.no_grad():
        log_prob = flow.log_prob(dequantise(images, 256))
    assert log_prob.shape == (3,)
    assert log_prob.is_meta
    assert not found.meetings


@every_model
def test_a_step_of_the_inverse_waits_for_convergence_alone(name: str, tmp_path: Path) -> None:
    flow = benchmark.trainer(MODELS[name], tmp_path).flow.eval()
    with benchmark.Operations(told_by(READS_OF_THE_INVERSE)) as found:
        for block in flow.contractive_blocks().values():
            y = torch.zeros(3, *block.shape, device="meta")
            assert invert(block.branch, y, 0.9, max_evaluations=1).x.shape == y.shape
    assert not found.meetings


def test_a_read_and_a_meeting_of_devices_are_noticed() -> None:
    flow = acf.build({"shape": (1, 4, 4), "blocks": [1], "idim": 4, "fc_blocks": 0}).train().to("meta")
    with benchmark.Operations(told_by({})), pytest.raises(AssertionError, match=r"is_started reads a value"):
        flow.log_prob(torch.rand(2, 1, 4, 4, device="meta"))
    with benchmark.Operations(told_by({})) as found, pytest.raises(RuntimeError):
        torch.ones(3, device="meta").add(torch.ones(3, device="cpu"))
    assert found.meetings
    with benchmark.Operations(told_by({})) as found:
        torch.ones(3, device="meta").mul(torch.ones((), device="cpu")).to("meta")
        torch.ones(3, device="cpu").to("meta")
    assert (not found.meetings, found.count, found.uploads) == (True, 1, 1)
