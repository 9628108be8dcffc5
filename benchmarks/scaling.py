"""How the cost of a training step grows: with blocks, batch, resolution, tokens and heads.

python benchmarks/scaling.py; writes results/scaling.json beside this file and docs/scaling.svg.

Each curve changes one number of a small flow and times the fast path's training step (`training_step.step`), points
taking turns. Terms are fixed at 4, so that all steps do the same. The exponent is the slope between the two largest
points in a doubly logarithmic plot.
"""

import json
import math
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from rich.progress import track
from training_step import ROOT, WARM, facts, step, table

import acf

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "acf"
import matplotlib.pyplot as plt  # noqa: E402

RESULT, FIGURE = ROOT / "benchmarks/results/scaling.json", ROOT / "docs/scaling.svg"
TURNS = 7
TERMS = {"training_log_det": {"exact_terms": 4, "parameter": 1e-9}}
BASE: dict[str, Any] = {"shape": [3, 16, 16], "blocks": [4], "idim": 64, "fc_blocks": 0}
BATCH = 16
ALONE: dict[str, Any] = BASE | {"blocks": [1]}


def attention(**more: Any) -> dict[str, Any]:
    return {"attention": {"kind": "sinkhorn", "heads": 4, **more}}


# Name: (unit, expected exponent, [(value, model, batch)])
CURVES: dict[str, tuple[str, float, list[tuple[int, dict[str, Any], int]]]] = {
    "blocks": ("residual blocks", 1, [(n, BASE | {"blocks": [n]}, BATCH) for n in (2, 4, 8, 16, 32)]),
    "batch": ("images", 1, [(n, BASE, n) for n in (8, 16, 32, 64, 128)]),
    "resolution": ("positions", 1, [(n * n, BASE | {"shape": [3, n, n]}, 4) for n in (16, 32, 64, 128)]),
    "tokens": ("tokens", 2, [(n * n, ALONE | {"shape": [3, n, n]} | attention(), 2) for n in (8, 16, 32, 48)]),
    "heads": ("heads", 1, [(n, ALONE | attention(heads=n), 4) for n in (1, 2, 4, 8, 16)]),
}


def measure(name: str) -> dict[str, Any]:
    """Seconds of each turn at each point."""
    steps = []
    for _, model, batch in CURVES[name][2]:
        torch.manual_seed(0)
        flow = acf.build({**model, **TERMS}).train()
        x = torch.rand(batch, *flow.shape)
        with torch.no_grad():
            flow(x)
        steps.append((flow, torch.optim.Adam(flow.parameters(), lr=1e-4), x))
    seconds: list[list[float]] = [[] for _ in steps]
    for turn in track(range(WARM + TURNS), name, transient=True):
        for (flow, optimiser, x), own in zip(steps, seconds, strict=True):
            taken, _ = step(flow, optimiser, x, flow.renormalise)
            if turn >= WARM:
                own.append(taken)
    return {"values": [value for value, _, _ in CURVES[name][2]], "seconds": seconds}


def exponent(curve: dict[str, Any]) -> float:
    (n, m), (s, t) = curve["values"][-2:], [statistics.median(own) for own in curve["seconds"][-2:]]
    return math.log(t / s) / math.log(m / n)


NOTES = """## How cost grows

Seconds of a training step of small flows, 4 terms of the power series, median of {turns} turns; *exponent* is the
slope between the last two points. Blocks, batch: 3x16x16, idim 64 (4 blocks, batch 16 where not varied). Resolution:
the same, batch 4. Tokens, heads: one convolutional block and one block of doubly stochastic attention (4 heads),
batches of 2 and 4: cost is that of the matrices tokens x tokens of every head, hence quadratic in tokens, where it
outgrows the convolutions, and linear in heads. Small sizes lie above their line because of the fixed cost of a call.

![Seconds against blocks, batch, positions, tokens and heads](scaling.svg)

"""


def section(result: dict[str, Any]) -> list[str]:
    """Part of the page, from the results."""
    rows = []
    for name, curve in result["curves"].items():
        pairs = zip(curve["values"], curve["seconds"], strict=True)
        points = ", ".join(f"{value}: {statistics.median(own):.3g}" for value, own in pairs)
        rows.append([name, points, f"{exponent(curve):.2f}", f"{CURVES[name][1]:g}"])
    return [NOTES.format(**result), *table(["varied", "seconds at", "exponent", "expected"], rows)]


def draw(result: dict[str, Any]) -> None:
    """All curves, each with its expected slope through the last point."""
    figure, axes = plt.subplots(1, len(result["curves"]), figsize=(15, 3.2), layout="constrained")
    for axis, (name, curve) in zip(axes, result["curves"].items(), strict=True):
        values, middle = curve["values"], [statistics.median(own) for own in curve["seconds"]]
        power = CURVES[name][1]
        axis.loglog(values, [middle[-1] * (v / values[-1]) ** power for v in values], "--", color="0.7")
        axis.loglog(values, middle, "o-", color="tab:blue")
        axis.set_title(f"{name}: expected slope {power:g}", fontsize=10)
        axis.set_xticks(values, [str(v) for v in values])
        axis.minorticks_off()
        axis.set_xlabel(CURVES[name][0])
    axes[0].set_ylabel("seconds per step")
    figure.savefig(FIGURE, metadata={"Date": None})


def main() -> None:
    result: dict[str, Any] = {"command": "python benchmarks/scaling.py", **facts(), "turns": TURNS}
    result["date"] = datetime.now(UTC).isoformat(timespec="seconds")
    result["curves"] = {name: measure(name) for name in CURVES}
    Path(RESULT).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    draw(result)


if __name__ == "__main__":
    main()
