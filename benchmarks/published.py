"""A training step of the code published with Residual Flows against this package's: CPU seconds and wall seconds.

python benchmarks/published.py CHECKOUT [CASE ...] [--device cpu] [--threads 1] [--turns 10]; writes
results/published.json beside this file, replacing the cases that were run. CHECKOUT is a clone of
github.com/rtqichen/residual-flows (`published_code` says how it is run). Without cases those of `DEFAULT` are run.

The two take turns in one process, each drawing its own numbers of terms; the first steps are left out. Before that,
both get the same weights and must map the same images to the same latent vectors.
"""

import argparse
import json
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import published_code
import torch
from published_steps import PARTS, our_step, seconds_of, their_step
from rich.progress import track
from training_step import ROOT, facts, table

import acf
from acf.runs.device import describe_device, select_device

COMMAND = "python benchmarks/published.py CHECKOUT"
RESULT = ROOT / "benchmarks/results/published.json"
SEED, WARM, TOLERANCE = 0, 2, 1e-4
# Shape, blocks, idim, batch
CASES: dict[str, tuple[tuple[int, int, int], list[int], int, int]] = {
    "1x4x4, host": ((1, 4, 4), [16, 16, 16], 4, 2),
    "1x16x16, host": ((1, 16, 16), [16, 16, 16], 4, 2),
    "1x28x28, 4-4-4, idim 128": ((1, 28, 28), [4, 4, 4], 128, 32),
    "3x32x32, 4-4-4, idim 128": ((3, 32, 32), [4, 4, 4], 128, 32),
    "1x28x28, 4-4-4, idim 512": ((1, 28, 28), [4, 4, 4], 512, 16),
    "1x28x28, the paper's": ((1, 28, 28), [16, 16, 16], 512, 64),
    "3x32x32, the paper's": ((3, 32, 32), [16, 16, 16], 512, 64),
}
DEFAULT = list(CASES)[:5]  # the others take minutes a step on two cores


def measure(case: str, checkout: Path, device: torch.device, turns: int) -> dict[str, Any]:
    """Seconds of each turn, by part and whole, of both codes."""
    shape, blocks, idim, batch = CASES[case]
    torch.manual_seed(SEED)
    flow = acf.build({"shape": shape, "blocks": blocks, "idim": idim}).to(device).train()
    published = published_code.Published(published_code.load(checkout), flow)
    x = torch.rand(batch, *shape, device=device)
    difference = published_code.largest_difference(published, flow, x)
    if not difference < TOLERANCE:
        raise SystemExit(f"{case}: the two codes are not the same function: z differs by a relative {difference:.1e}")
    steps = {"published": their_step(published), "ours": our_step(flow)}
    result: dict[str, Any] = {name: {"cpu": [], "wall": []} for name in steps}
    for turn in track(range(WARM + turns), case, transient=True):
        for name, step in steps.items():
            cpu, wall = seconds_of(step, x)
            if turn >= WARM:
                result[name]["cpu"].append(cpu)
                result[name]["wall"].append(wall)
    return {
        **result,
        "difference": difference,
        "scales_added": not published.same_scales,
        "residual_blocks": len(flow.contractive_blocks()),
        "batch": batch,
        "device": describe_device(device),
        "threads": torch.get_num_threads(),
        "parameters": {
            "published": sum(p.numel() for p in published.net.parameters()),
            "ours": sum(p.numel() for p in flow.parameters()),
        },
    }


NOTES = """## Against the published code itself

Training steps of `resflow` and of the code published with arXiv 1906.02735 (a checkout of
github.com/rtqichen/residual-flows, as it is, given to `benchmarks/published.py`): forward pass and log-determinant
(2 exact terms + Poisson(2)), backward pass, clipping, Adam, norm update (5 iterations in both) and moving average. The
same architecture; on the same weights both map images to the same latent vectors (checked at every run, to a relative
1e-4). Means over {turns} turns with their standard errors; the two take turns in one process, {threads}. *Host* cases
have next to no arithmetic (idim 4, batch 2), so they show what a step costs the interpreter.

"""
ADDED = """
The published code builds no scale whose maps are smaller than 4x4: for blocks 16-16-16 on 1x4x4 maps it has 20 residual
blocks, not 52. Where marked *, it is made to build them, so that both codes have the same blocks.
"""


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Mean and standard error."""
    return statistics.fmean(values), statistics.stdev(values) / len(values) ** 0.5


def section(result: dict[str, Any]) -> list[str]:
    """Part of the page, from the results."""
    threads = {f"{case['threads']} thread{'s' * (case['threads'] > 1)}" for case in result["cases"].values()}
    lines = [NOTES.format(turns=result["turns"], threads=" or ".join(sorted(threads)))]
    rows = []
    for name, case in result["cases"].items():
        row = [name + ("*" if case["scales_added"] else ""), case["residual_blocks"]]
        for clock in ("cpu", "wall"):
            means = {}
            for code in ("published", "ours"):
                means[code], error = mean_and_error([turn[-1] for turn in case[code][clock]])
                row.append(f"{means[code]:.3f} ± {error:.3f}")
            row.append(f"{means['published'] / means['ours']:.2f}")
        rows.append(row)
    head = ["case", "blocks"]
    for clock in ("CPU s", "wall s"):
        head += [f"published, {clock}", f"ours, {clock}", "ratio"]
    lines += [*table(head, rows), ADDED]
    return lines + table(["case", "code", *PARTS], _parts(result))


def _parts(result: dict[str, Any]) -> list[list[Any]]:
    """Mean CPU seconds by part."""
    return [
        [name, code, *(f"{statistics.fmean(part):.3f}" for part in zip(*case[code]["cpu"], strict=True))][:-1]
        for name, case in result["cases"].items()
        for code in ("published", "ours")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of: {'; '.join(CASES)}")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=10)
    given = parser.parse_args()
    if unknown := set(given.cases) - set(CASES):
        parser.error(f"unknown case {sorted(unknown)[0]!r}; known: {'; '.join(CASES)}")
    torch.set_num_threads(given.threads)
    device = select_device(given.device)
    result = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {"cases": {}}
    result |= {"command": COMMAND, "date": datetime.now(UTC).isoformat(timespec="seconds"), "seed": SEED}
    result |= {**facts(), "turns": given.turns}
    for case in given.cases or DEFAULT:
        result["cases"][case] = measure(case, given.checkout, device, given.turns)
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(case, "done", flush=True)


if __name__ == "__main__":
    main()
