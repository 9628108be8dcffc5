"""Training step of the fast path against the published algorithm, and the memory of a step.

python benchmarks/training_step.py [CASE ...]; writes results/training_step.json beside this file, replacing the cases
that were run.

One step is forward pass, log-determinant, backward pass, clipping, optimiser and norm update, on the same model, batch,
noise and number of terms; the three take turns in one process. The reference is `acf.flows.reference`. Memory is the
largest resident set of a process of its own that takes two steps, less that before the first.
"""

import copy
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor

import acf
from acf.flows import reference
from acf.runs.device import describe_device

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "python benchmarks/training_step.py"
RESULT = ROOT / "benchmarks/results/training_step.json"
SEED, BATCH, WARM, TURNS = 0, 32, 1, 7
MODEL: dict[str, Any] = {"blocks": [4, 4, 4], "idim": 128}
SHAPES = {"1x28x28": (1, 28, 28), "3x32x32": (3, 32, 32)}
CASES = [f"{kind} {shape}" for kind in ("resflow", "l2", "dot", "sinkhorn", "clip") for shape in SHAPES]
# 48 convolutional blocks; terms are fixed, so that the two fast rows differ in nothing else.
MEMORY_MODEL: dict[str, Any] = {"shape": [1, 28, 28], "blocks": [16, 16, 16], "idim": 64, "fc_blocks": 0}
MEMORY_BATCH = 16
MEMORY_ROWS: dict[str, dict[str, Any]] = {
    "keeping the graph, 4 terms": {"exact_terms": 4, "neumann_gradient": False, "memory_efficient": False},
    "fast path, 4 terms": {"exact_terms": 4},
    "fast path, 12 terms": {"exact_terms": 12},
}


def with_bfloat16(flow: acf.Flow) -> acf.Flow:
    flow = copy.deepcopy(flow)
    for block in flow.contractive_blocks().values():
        block.training_log_det = block.training_log_det.model_copy(update={"bfloat16": True})
    return flow


def step(
    flow: acf.Flow, optimiser: torch.optim.Optimizer, x: Tensor, renormalise: Callable[[], None]
) -> tuple[float, float]:
    """Seconds of a training step, and its loss."""
    start = time.perf_counter()
    optimiser.zero_grad(set_to_none=True)
    loss = -flow.log_prob(x).mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
    optimiser.step()
    renormalise()
    return time.perf_counter() - start, float(loss.detach())


def measure(case: str) -> dict[str, Any]:
    """Seconds of each turn after a warm one, and the losses, which show that all three do the same."""
    kind, shape = case.split()
    torch.manual_seed(SEED)
    attention = {} if kind == "resflow" else {"attention": {"kind": kind, "heads": 4, "every": 3}}
    flow = acf.build({"shape": SHAPES[shape], **MODEL, **attention}).train()
    x = torch.rand(BATCH, *SHAPES[shape])
    with torch.no_grad():
        flow(x)  # ActNorm and scales of attention start here
    flows = {"published": reference.as_reference(flow), "fast": flow, "bfloat16": with_bfloat16(flow)}
    updates = {name: one.renormalise for name, one in flows.items()}
    updates["published"] = lambda: reference.renormalise(flows["published"])
    optimisers = {name: torch.optim.Adam(one.parameters(), lr=1e-4) for name, one in flows.items()}
    seconds: dict[str, list[float]] = {name: [] for name in flows}
    losses: dict[str, list[float]] = {name: [] for name in flows}
    for turn in track(range(WARM + TURNS), case, transient=True):
        for name, one in flows.items():
            torch.manual_seed(turn)
            taken, loss = step(one, optimisers[name], x, updates[name])
            losses[name].append(loss)
            if turn >= WARM:
                seconds[name].append(taken)
    return {"seconds": seconds, "losses": losses, "parameters": sum(p.numel() for p in flow.parameters())}


def peak(row: str) -> float:
    """MiB by which two steps raise this process's largest resident set."""
    torch.manual_seed(SEED)
    flow = acf.build({**MEMORY_MODEL, "training_log_det": {"parameter": 1e-9, **MEMORY_ROWS[row]}}).train()
    optimiser = torch.optim.Adam(flow.parameters(), lr=1e-4)
    x = torch.rand(MEMORY_BATCH, *flow.shape)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2):
        step(flow, optimiser, x, flow.renormalise)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def peaks() -> dict[str, float]:
    def run(row: str) -> float:
        command = [sys.executable, __file__, "--peak", row]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    return {row: run(row) for row in MEMORY_ROWS}


NOTES = """## Training step

Forward pass, log-determinant (2 exact terms + Poisson(2)), backward pass, clipping, Adam and norm update (5
iterations). Blocks 4-4-4, idim 128, 4 fully connected blocks, batch {batch}; attention has 4 heads, in a block of its
own after every third block. Median seconds of {turns} warm steps, the three taking turns with the same noise and number
of terms.

- *published*: every product with the Jacobian one call of `torch.autograd.grad`, second derivatives in the forward pass
  ("backward in forward", arXiv 1906.02735), norms layer by layer, eager (`acf.flows.reference`).
- *fast*: what the package does; the same loss and gradients (in float64 to 1e-9: `tests/flows/test_fast_path.py`).
- *bfloat16*: `training.log_det.bfloat16: true`, off by default. Products with Jacobians, and the gradient through
  branches without attention, are computed in bfloat16; the map itself, weights, norms and certificate are not. Its
  losses follow the fast path's to the relative difference shown.

"""
LIMIT = """
Three times as fast was the aim. Attention is there, convolutional flows in float32 are not: published and fast
algorithm take about as many passes through a branch (12 and 11 with 4 terms of the series), more than half of the fast
path's time goes into matrix products at the machine's own rate, and that rate bounds the ratio to some 3.5. Products in
bfloat16 are twice as fast where the processor has them.
"""
MEMORY_NOTES = """
## Memory of a training step

48 convolutional blocks (16-16-16, idim 64, 1x28x28, batch {memory_batch}): rise of the largest resident set over two
steps, each row a process of its own.

"""


def section(result: dict[str, Any]) -> list[str]:
    """Part of the page, from the results."""
    lines = [NOTES.format(**result)]
    head = [
        "model",
        "published",
        "fast",
        "bfloat16",
        "published / fast",
        "published / bfloat16",
        "largest change of loss",
    ]
    rows = []
    for case, row in result["cases"].items():
        middle = {name: statistics.median(times) for name, times in row["seconds"].items()}
        pairs = zip(row["losses"]["fast"], row["losses"]["bfloat16"], strict=True)
        change = max(abs(a - b) / abs(a) for a, b in pairs)
        ratios = [f"{middle['published'] / middle[name]:.2f}" for name in ("fast", "bfloat16")]
        rows.append([case, *(f"{value:.3f}" for value in middle.values()), *ratios, f"{change:.1e}"])
    lines += [*table(head, rows), LIMIT.rstrip("\n")]
    if "memory" in result:
        lines.append(MEMORY_NOTES.format(**result))
        most = max(result["memory"].values())
        lines += table(
            ["way", "MiB", "share"], [[k, f"{v:.0f}", f"{v / most:.3f}"] for k, v in result["memory"].items()]
        )
    return lines


def table(head: list[str], rows: list[list[Any]]) -> list[str]:
    """Lines of a table."""
    return ["| " + " | ".join(map(str, row)) + " |" for row in [head, ["---"] * len(head), *rows]]


def facts() -> dict[str, Any]:
    """What every result says of the machine and versions."""
    machine = {"machine": describe_device(torch.device("cpu")), "torch": torch.__version__}
    return {**machine, "load_before": round(os.getloadavg()[0], 1)}


def main() -> None:
    if sys.argv[1:2] == ["--peak"]:
        print(peak(sys.argv[2]))
        return
    result = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {"cases": {}}
    result |= {"command": COMMAND, "date": datetime.now(UTC).isoformat(timespec="seconds"), "seed": SEED}
    result |= {**facts(), "batch": BATCH, "turns": TURNS, "memory_batch": MEMORY_BATCH}
    for case in sys.argv[1:] or ["memory", *CASES]:
        if case == "memory":
            result["memory"] = peaks()
        else:
            result["cases"][case] = measure(case)
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(case, "done", flush=True)


if __name__ == "__main__":
    main()
