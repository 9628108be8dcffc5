"""Bits/dim on Fashion-MNIST by step and by second of training: the published code against this package.

python benchmarks/published_quality.py CHECKOUT [--seconds 300] [--blocks 4 4 4] [--idim 64] ..., after
`acf prepare --dataset fashion-mnist`; writes results/published_quality.json beside this file.

Both start with the same weights, set their scales from the same batch, each in its own way, and train in turn, step by
step in one process, on the same batches with Adam, clipping and the same learning rate, until each has had its seconds:
of CPU on a CPU (with one thread these are its own, whatever else the machine does), of wall on a GPU. Evaluation is not
counted. It takes the live weights, the same held-out images, dequantised once, and the published estimator (20 exact
terms) in both. `--training` changes settings of the package's side, such as its optimiser: '{"learning_rate": 2e-3}'.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import published_code
import torch
from published_steps import Step, our_step, synchronise, take, their_step
from torch import Tensor, nn
from training_step import ROOT, facts, table

import acf
from acf.data.prepared.tensors import load
from acf.flows.dequantise import dequantise
from acf.runs.device import describe_device, select_device
from acf.settings.config import EvaluationLogDetConfig, TrainingConfig

COMMAND = "python benchmarks/published_quality.py CHECKOUT"
RESULT = ROOT / "benchmarks/results/published_quality.json"
SHAPE, LEVELS = (1, 28, 28), 256
ESTIMATOR = EvaluationLogDetConfig(exact_terms=20, distribution="poisson", parameter=2.0, probe="gaussian")


@dataclass
class Side:
    """One of the two codes in training, with what it has reached."""

    step: Step
    module: nn.Module
    log_prob: Callable[[Tensor], Tensor]
    seconds: float = 0.0
    steps: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)

    def train(self, x: Tensor) -> None:
        """Take a step and count its seconds."""
        clock = time.perf_counter if x.is_cuda else time.process_time
        synchronise(x)
        start = clock()
        take(self.step, x)
        synchronise(x)
        self.seconds += clock() - start
        self.steps += 1

    @torch.no_grad()
    def evaluate(self, held_out: Tensor, flow: acf.Flow) -> None:
        """Append bits/dim of held-out images, with its standard error, to the curve."""
        self.module.eval()
        torch.manual_seed(0)
        np.random.seed(0)
        parts = [self.log_prob(part).detach() for part in held_out.split(64)]
        self.module.train()
        values = published_code.bits_per_dim(torch.cat(parts), flow)
        error = float(values.std()) / len(values) ** 0.5
        row = {
            "step": self.steps,
            "seconds": self.seconds,
            "bits_per_dim": float(values.mean()),
            "standard_error": error,
        }
        self.curve.append(row)


def measure(given: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Both curves."""
    torch.manual_seed(given.seed)
    np.random.seed(given.seed)
    train, test = images(given)
    held_out = dequantise(test, LEVELS, torch.Generator().manual_seed(given.seed)).to(device)
    settings = {"learning_rate": given.rate, "warmup_steps": 0, **json.loads(given.training)}
    flow = acf.build({"shape": SHAPE, "blocks": given.blocks, "idim": given.idim}).to(device).train()
    published = published_code.Published(published_code.load(given.checkout), flow, given.rate)
    published.take_branches_of(flow)
    flow.use_evaluation_estimator(ESTIMATOR)
    own = our_step(flow, settings=TrainingConfig.model_validate(settings))
    sides = {
        "published": Side(their_step(published), published.net, published.log_prob),
        "ours": Side(own, flow, flow.log_prob),
    }
    with torch.no_grad():  # each sets its scales from the same batch in its own way
        first = dequantise(train[: given.batch], LEVELS).to(device)
        for side in sides.values():
            side.log_prob(first)
    order = torch.Generator().manual_seed(given.seed)
    while any(side.seconds < given.seconds for side in sides.values()):
        chosen = torch.randint(len(train), (given.batch,), generator=order)
        x = dequantise(train[chosen], LEVELS).to(device)
        for name, side in sides.items():
            if side.seconds < given.seconds:
                if side.steps % given.every == 0:
                    report(name, side, held_out, flow)
                side.train(x)
    for name, side in sides.items():
        report(name, side, held_out, flow)
    return {name: side.curve for name, side in sides.items()}


def report(name: str, side: Side, held_out: Tensor, flow: acf.Flow) -> None:
    """Evaluate a side and print what it has reached."""
    side.evaluate(held_out, flow)
    print(name, {key: round(value, 4) for key, value in side.curve[-1].items()}, flush=True)


def images(given: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Training and held-out images, uint8 (N, 1, 28, 28), from the prepared data set or from one file with both."""
    if given.images is not None:
        stored = torch.load(given.images, weights_only=True)
        return stored["train"], stored["test"][: given.held_out]
    return load("fashion-mnist", "train")[:], load("fashion-mnist", "test")[: given.held_out]


NOTES = """## Quality by step and by second, against the published code

Fashion-MNIST, blocks {blocks}, idim {idim}, batch {batch}, learning rate {rate}, {device}: bits/dim, with the live
weights, of {held_out} held-out images (standard error about {error:.3f}, for the most part common to both, as the
images are the same). Both codes start with the same weights and see the same batches; seconds are of {clock},
evaluation left out.

"""


def section(result: dict[str, Any]) -> list[str]:
    """Part of the page, from the results."""
    curves = result["curves"]
    lines = [NOTES.format(error=curves["ours"][-1]["standard_error"], **result)]
    by_step = {name: {row["step"]: row for row in curve} for name, curve in curves.items()}
    rows = []
    for step in sorted(set(by_step["published"]) & set(by_step["ours"])):
        pair = [by_step[name][step] for name in ("published", "ours")]
        rows.append([step, *(f"{row['bits_per_dim']:.3f}" for row in pair), *(f"{row['seconds']:.0f}" for row in pair)])
    lines += table(["step", "published, bits/dim", "ours", "published, seconds", "ours"], rows)
    last = curves["published"][-1]
    reached = seconds_to(curves["ours"], last["bits_per_dim"])
    when = (
        "did not reach it" if reached is None else f"needed {reached:.0f}, {last['seconds'] / reached:.2f} times fewer"
    )
    return [
        *lines,
        "",
        f"After {last['seconds']:.0f} seconds the published code is at {last['bits_per_dim']:.3f} bits/dim; "
        f"ours {when}, and after {curves['ours'][-1]['seconds']:.0f} is at {curves['ours'][-1]['bits_per_dim']:.3f}.",
    ]


def seconds_to(curve: list[dict[str, float]], bits_per_dim: float) -> float | None:
    """Seconds at which a curve first reaches a value, between two points by a straight line; None if it never does."""
    for before, after in pairwise(curve):
        if after["bits_per_dim"] <= bits_per_dim:
            share = (before["bits_per_dim"] - bits_per_dim) / (before["bits_per_dim"] - after["bits_per_dim"])
            return before["seconds"] + max(0.0, share) * (after["seconds"] - before["seconds"])
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("--images", type=Path, help="file of torch with uint8 images under `train` and `test`")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=300, help="of training, for each side")
    parser.add_argument("--blocks", type=int, nargs="+", default=[4, 4, 4])
    parser.add_argument("--idim", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--training", default="{}", help="other settings of the package's training, as JSON")
    parser.add_argument("--every", type=int, default=100, help="steps between two evaluations")
    parser.add_argument("--held-out", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = select_device(given.device)
    result = {"command": COMMAND, "date": datetime.now(UTC).isoformat(timespec="seconds"), **facts()}
    result |= {key: value for key, value in vars(given).items() if not isinstance(value, Path) and value is not None}
    result |= {"device": describe_device(device), "clock": "wall" if device.type == "cuda" else "CPU"}
    result["curves"] = measure(given, device)
    given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
