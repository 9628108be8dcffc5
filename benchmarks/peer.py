"""Residual blocks against those of `normflows`, the package people install: seconds of a training step.

pip install --no-deps --no-build-isolation -r benchmarks/requirements.txt
python benchmarks/peer.py; writes results/peer.json beside this file.

Both chain four blocks with the branch of Residual Flows (LipSwish and 3x3, 1x1, 3x3 convolutions, 128 channels within),
take 4 terms of the series and 5 power iterations, and save memory in their own way.
"""

import importlib.metadata
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import torch
from rich.progress import track
from torch import Tensor, nn
from training_step import BATCH, ROOT, SHAPES, WARM, facts, table

from acf.flows.residual import ResidualBlock
from acf.lipschitz.branch import conv_branch
from acf.lipschitz.normalised import Normalised, renormalise
from acf.settings.config import EvaluationLogDetConfig, ModelConfig, TrainingLogDetConfig

RESULT = ROOT / "benchmarks/results/peer.json"
BLOCKS, TERMS, ITERATIONS, IDIM, TURNS = 4, 4, 5, 128, 7
KERNELS = [3, 1, 3]


class Theirs(nn.Module):
    """Four `normflows.flows.Residual`, in the direction in which they need no fixed point."""

    def __init__(self, channels: int) -> None:
        import normflows

        super().__init__()
        self.update = normflows.utils.update_lipschitz
        nets = [
            normflows.nets.LipschitzCNN([channels, IDIM, IDIM, channels], KERNELS, 0.98, ITERATIONS, init_zeros=False)
            for _ in range(BLOCKS)
        ]
        self.blocks = nn.ModuleList(normflows.flows.Residual(net, reverse=False, n_power_series=TERMS) for net in nets)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for block in self.blocks:
            x, log_det = block(x)
            total = total + log_det
        return x, total

    def renormalise(self) -> None:
        self.update(self, ITERATIONS)


class Ours(nn.Module):
    """Four residual blocks of this package."""

    def __init__(self, shape: tuple[int, int, int], bfloat16: bool) -> None:
        super().__init__()
        config = ModelConfig(shape=shape, idim=IDIM, kernels=KERNELS)
        terms = TrainingLogDetConfig(exact_terms=TERMS, parameter=1e-9, probe="gaussian", bfloat16=bfloat16)
        branches = [conv_branch(config, shape, leading_activation=True) for _ in range(BLOCKS)]
        self.blocks = nn.ModuleList(ResidualBlock(b, shape, terms, EvaluationLogDetConfig()) for b in branches)

    forward = Theirs.forward

    def renormalise(self) -> None:
        renormalise([m for m in self.modules() if isinstance(m, Normalised)], ITERATIONS)


def step(model: nn.Module, optimiser: torch.optim.Optimizer, x: Tensor, update: Callable[[], None]) -> float:
    """Seconds of forward pass, log-determinant, backward pass, Adam and norm update."""
    start = time.perf_counter()
    optimiser.zero_grad(set_to_none=True)
    z, log_det = model(x)
    loss = (z.square().flatten(1).sum(1) / 2 - log_det).mean()
    loss.backward()
    optimiser.step()
    update()
    return time.perf_counter() - start


def measure(shape: tuple[int, int, int]) -> dict[str, Any]:
    """Seconds of each turn after a warm one."""
    torch.manual_seed(0)
    models: dict[str, Any] = {"normflows": Theirs(shape[0]), "fast": Ours(shape, False), "bfloat16": Ours(shape, True)}
    optimisers = {name: torch.optim.Adam(model.train().parameters(), lr=1e-4) for name, model in models.items()}
    x = torch.randn(BATCH, *shape)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for turn in track(range(WARM + TURNS), str(shape), transient=True):
        for name, model in models.items():
            taken = step(model, optimisers[name], x, model.renormalise)
            if turn >= WARM:
                seconds[name].append(taken)
    return {"seconds": seconds, "parameters": {n: sum(p.numel() for p in m.parameters()) for n, m in models.items()}}


NOTES = """## Against normflows

Four residual blocks of `normflows` {normflows} (`flows.Residual` on `nets.LipschitzCNN`, memory saving on) and four of
this package: the same layers, 128 channels within, batch {batch}, 4 terms, Adam, 5 power iterations. Median seconds of
{turns} turns. The packages' blocks are not the same function to the last bit: coefficients and initial weights differ.

"""


def section(result: dict[str, Any]) -> list[str]:
    """Part of the page, from the results."""
    rows = []
    for name, case in result["cases"].items():
        middle = {key: statistics.median(own) for key, own in case["seconds"].items()}
        ratios = [f"{middle['normflows'] / middle[key]:.2f}" for key in ("fast", "bfloat16")]
        rows.append([name, *(f"{value:.3f}" for value in middle.values()), *ratios])
    head = ["maps", "normflows", "fast", "bfloat16", "normflows / fast", "normflows / bfloat16"]
    return [NOTES.format(**result), *table(head, rows)]


def main() -> None:
    result: dict[str, Any] = {"command": "python benchmarks/peer.py", **facts(), "batch": BATCH, "turns": TURNS}
    result["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    result["normflows"] = importlib.metadata.version("normflows")
    result["cases"] = {name: measure(shape) for name, shape in SHAPES.items()}
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
