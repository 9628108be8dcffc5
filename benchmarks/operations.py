"""Tensor operations and host time of a training step.

python benchmarks/operations.py; writes results/operations.json beside this file. The numbers of operations are the
budgets of tests/training/test_operations.py.

Operations are counted on torch's meta device, whose tensors have no values: what a GPU would be told to do, on a
machine without one. They are those of the trainer's own step, with 4 terms of the power series in every block. Host
time is CPU time of this process, on one thread, for steps whose arithmetic is negligible.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from acf.lipschitz import activations
from acf.lipschitz.first_batch import StartedByFirstBatch
from acf.runs.device import describe_device
from acf.settings.config import ModelConfig, TrainingConfig
from acf.settings.params import Params
from acf.training.batches import Batches
from acf.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "python benchmarks/operations.py"
RESULT = ROOT / "benchmarks/results/operations.json"
SOURCES = str(ROOT / "src/acf") + "/"
META, CPU = torch.device("meta"), torch.device("cpu")
TERMS = {"exact_terms": 4, "parameter": 1e-9}
SMALL: dict[str, Any] = {"shape": [1, 8, 8], "squeeze_first": True, "blocks": [1], "idim": 8}
SMALL |= {"fc_width": 8, "dense": {"depth": 2, "growth": 4}}
PAPER: dict[str, Any] = {"shape": [1, 28, 28], "blocks": [16, 16, 16], "idim": 128}
TINY: dict[str, Any] = {"shape": [1, 4, 4], "blocks": [16, 16, 16], "idim": 4}
HOST_ROWS = {"resflow 16-16-16, 1x4x4, idim 4": (TINY, 2), "resflow 1 + 4 blocks, 1x8x8": (SMALL | {"fc_blocks": 4}, 2)}
WARM, TURNS = 2, 5
READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)
COPIES = ("aten::_to_copy", "aten::copy_", "aten::_foreach_copy_")


def models() -> dict[str, dict[str, Any]]:
    """Models to count: small ones of all models of params.yaml and of the attention that none has, a large one."""
    variants: dict[str, dict[str, Any]] = {}
    params = Params(ROOT / "params.yaml").raw
    usual = params["defaults"]["model"]
    for name, variant in params["variants"].items():
        model = {key: value for key, value in variant.get("model", {}).items() if value != usual[key]}
        if model not in variants.values():
            variants[name] = model
    variants["acf-clip"] = {"attention": {"kind": "clip"}}
    small = {}
    for name, settings in variants.items():
        attention = settings.get("attention", {"kind": "none"}) | {"every": 1, "heads": 2}
        small[name] = SMALL | settings | {"attention": attention, "fc_blocks": 4 if name == "resflow" else 1}
    return small | {"resflow 16-16-16, 1x28x28": PAPER}


class Operations(TorchDispatchMode):
    """Counts the operations within its context, and what makes the host wait for a device.

    Args:
        told: gives what the host finds where it reads a value of the meta device, which has none, from the place
            (module and function) of the read; raises an error where none is expected.

    Attributes:
        count: number of operations.
        reads: number of reads by place.
        meetings: operations on tensors of two devices, scalars of the host left out, by name and place.
        uploads: number of tensors copied to the device.
    """

    def __init__(self, told: Callable[[str], bool]) -> None:
        super().__init__()
        self.count = self.uploads = 0
        self.reads: Counter[str] = Counter()
        self.meetings: Counter[str] = Counter()
        self._told = told

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count the operation `func` and carry it out."""
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        devices = {tensor.device.type for tensor in tensors if tensor.dim() or tensor.is_meta}
        name = func._schema.name
        if name in COPIES:
            self.uploads += devices == {"cpu"} and torch.device(kwargs.get("device") or "cpu").type == "meta"
        elif len(devices) > 1:
            self.meetings[f"{name} in {place()}"] += 1
        if "meta" in devices:
            self.count += 1
            if func in READS:
                return self._read()
            if name in ("aten::index", "aten::index_put", "aten::index_put_"):
                args = (args[0], [self._without_mask(index) for index in args[1]], *args[2:])
        return func(*args, **kwargs)

    def _read(self) -> bool:
        here = place()
        self.reads[here] += 1
        return self._told(here)

    def _without_mask(self, index: Tensor | None) -> Tensor | None:
        """A mask has the host wait for the number of true values; here all are."""
        if index is None or index.dtype != torch.bool:
            return index
        self._read()
        return torch.arange(len(index), device=index.device)


def place() -> str:
    """Module and function of this package that is running, such as "training.trainer.Trainer._gradient_step"."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.startswith(SOURCES):
            module = frame.f_code.co_filename.removeprefix(SOURCES).removesuffix(".py").replace("/", ".")
            return f"{module}.{frame.f_code.co_qualname.partition('.<locals>')[0]}"
        frame = frame.f_back
    return "outside"


@contextmanager
def meta_as_a_gpu() -> Iterator[None]:
    """Let torch's optimisers treat the meta device as they treat CUDA."""
    fused = [*_foreach_utils._get_fused_kernels_supported_devices(), "meta"]
    foreach = [*_foreach_utils._get_foreach_kernels_supported_devices(), "meta"]
    with (
        mock.patch("torch.optim.optimizer._get_fused_kernels_supported_devices", side_effect=fused.copy),
        mock.patch.object(_foreach_utils, "_get_foreach_kernels_supported_devices", return_value=foreach),
    ):
        yield


@contextmanager
def functions_as_on_cuda(found: Operations) -> Iterator[None]:
    """Compute activations of the meta device's tensors as on CUDA, where a fused function is one kernel."""

    def once(function: Any) -> Callable[..., Any]:
        def call(*tensors: Tensor) -> Any:
            found.count += 1
            with _disable_current_modes():
                return function.__wrapped__(*tensors)

        return call

    jvp, vjp = once(activations._silu_jvp), once(activations._silu_jvp_vjp)
    with (
        mock.patch.object(activations, "_silu_and_slope", once(activations._silu_and_slope)),
        mock.patch.object(activations, "_silu_jvp_and_pullback", lambda z: (jvp(z), lambda v: vjp(z, v))),
    ):
        yield


def trainer(
    model: Mapping[str, Any], folder: Path, device: torch.device = META, batch: int = 4, task: str = "density"
) -> Trainer:
    """A trainer whose flow has had its first batch."""
    classes, labels = (None, None) if task == "density" else (10, [0] * 20)
    config = ModelConfig.model_validate({**model, "training_log_det": TERMS, "classes": classes})
    settings = {"task": {"kind": task}, "steps": 100, "batch_size": batch, "warmup_steps": 0}
    training = TrainingConfig.model_validate(settings)
    images = torch.zeros(20, *config.shape, dtype=torch.uint8, device="cpu")
    with meta_as_a_gpu(), device:  # so that weights on the meta device cost nothing
        run = Trainer(config, training, Batches(images, 4, 0, labels), 0, device, folder, "operations")
    for module in run.flow.modules():
        if device == META and isinstance(module, StartedByFirstBatch):
            module.set_started()
    return run


def take_step(run: Trainer) -> None:
    """One step of training as `Trainer.run` takes it."""
    run.flow.train()
    run._gradient_step(1e-3)
    run.average.update_parameters(run.flow)
    run.step += 1


def step_operations(model: Mapping[str, Any], told: Callable[[str], bool], task: str = "density") -> Operations:
    """What the second step does; in the first the optimiser makes its state."""
    with tempfile.TemporaryDirectory() as folder, meta_as_a_gpu():
        run = trainer(model, Path(folder), task=task)
        with Operations(told):
            take_step(run)
        with Operations(told) as operations, functions_as_on_cuda(operations):
            take_step(run)
    return operations


def host_seconds(model: Mapping[str, Any], batch: int) -> list[float]:
    """CPU seconds of training steps on the CPU, after warm ones."""
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        run = trainer(model, Path(folder), CPU, batch)
        for _ in range(WARM + TURNS):
            start = time.process_time()
            take_step(run)
            taken.append(time.process_time() - start)
    return taken[WARM:]


def told(here: str) -> bool:
    """Refuse to tell: nothing is read in a step."""
    raise AssertionError(f"{here} reads a value of the device on the host")


NOTES = """## Operations and host time

Operations that one training step (log-likelihood and its gradient, clipping, AdamW, norm update, moving average)
dispatches to a device, 4 terms of the power series in every block, counted without a device, views included; what is
one kernel on CUDA (`acf.lipschitz.kernels.fused`) counts once. *Reads* are values for which the host waits. On CUDA the
operations of a block are recorded and replayed (`acf.flows.cuda_graphs`). Small models: 1x8x8, one convolutional block
with attention after it or in it, one fully connected block, four for `resflow`. Without recordings each
operation costs the host some 5 µs or more, whatever the card.

| model | operations | reads | copies to the device |
| --- | --- | --- | --- |"""
HOST_NOTES = """
CPU seconds of a step whose arithmetic is negligible (batch 2, one thread, median of {turns}): what the host needs.

| model | CPU seconds |
| --- | --- |"""


def section(result: dict[str, Any]) -> list[str]:
    """Lines of the page on performance."""
    lines = NOTES.splitlines()
    for name, row in result["operations"].items():
        lines.append(f"| {name} | {row['operations']:,} | {row['reads']} | {row['uploads']} |")
    lines += HOST_NOTES.format(**result).splitlines()
    lines += [f"| {name} | {statistics.median(taken):.3f} |" for name, taken in result["host_seconds"].items()]
    return lines


def main() -> None:
    """Count and measure everything."""
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    counted = {}
    for name, model in models().items():
        if model.get("block") == "monotone":  # which iterates as often as values demand, and there are none
            continue
        found = step_operations(model, told)
        counted[name] = {"operations": found.count, "reads": found.reads.total(), "uploads": found.uploads}
        print(name, counted[name])
    result = {
        "command": COMMAND,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "machine": describe_device(CPU),
        "load_before": round(load, 1),
        "turns": TURNS,
        "operations": counted,
        "host_seconds": {name: host_seconds(*row) for name, row in HOST_ROWS.items()},
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
