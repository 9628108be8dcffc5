"""The gallery of toys: trains a flow on each density of the plane, two at a time, and makes the page.

python benchmarks/toys.py, ten minutes on two cores; after each toy writes docs/gallery.md, docs/toys/NAME.png, and
results/toys.json beside this file. `--at-once 4` trains four at a time; `--page` makes the page again from the results
that are there.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training_step import ROOT, facts, table

from acf.data.toy_densities import TOYS
from acf.reporting.wording import bound, with_error

RESULT, PAGE, PICTURES = ROOT / "benchmarks/results/toys.json", ROOT / "docs/gallery.md", ROOT / "docs/toys"
RUNS = [[name] for name in TOYS] + [["moons", "--conditional"]]
HEAD = """# Gallery of toys

Eight densities of the plane (those of the code published with [arXiv 1810.01367](https://arxiv.org/abs/1810.01367),
which that of [arXiv 1906.02735](https://arxiv.org/abs/1906.02735) copies; the pinwheel turns the other way), and a
contractive flow that was trained on each for a minute on one core. Every residual block is proven contractive, and
log-determinants are exact.

    acf toy checkerboard            # writes toys/checkerboard/{density.png,samples.csv,metrics.json,model/}
    acf toy all                     # all eight, one after the other; acf toy --list names them
    acf toy moons --conditional     # p(x | c), c the moon
    acf toy rings --steps 5000 --seed 1 --device cuda --to elsewhere

`acf.load("toys/checkerboard/model")` is the flow. A toy is written when it is finished, and the same seed has the same
result on the same machine. The pictures show data, the density of the flow, and samples of the flow. A minute
does not resolve everything: the inner arms of the spirals, the inner rings and the edges of the board are blurred.
"""
NUMBERS = """
## Numbers

Log-likelihoods in nats are means over {points:,} new points, ± one standard error. The best possible one is minus the
entropy of the density itself, which is known (`acf/data/toy_densities.py`). The divergence is the mean of
log p(x) - log q(x) over the same points, p the density and q the flow: an estimate of the Kullback-Leibler divergence,
0 for a perfect flow. The integral is that of the flow's density over a square of side 12. The certificate is the
largest proven Lipschitz constant of a block. With labels, p(x | c) takes the place of p(x). CPU time is that of the
training, {steps} steps with seed 0; it is longer where other programs share the cores.
"""
SOURCE = "\n*Made by `python benchmarks/toys.py`, {date}, torch {torch}, {machine}; load before {load_before}.*\n"


def train(run: list[str], folder: Path) -> dict[str, Any]:
    """Train one toy by the command line; return what it measured, and put its picture among the documents."""
    command = [sys.executable, "-m", "acf", "toy", *run, "--device", "cpu", "--to", str(folder)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    name = folder_of(run)
    PICTURES.mkdir(exist_ok=True)
    shutil.copy(folder / name / "density.png", PICTURES / f"{name}.png")
    return json.loads((folder / name / "metrics.json").read_text(encoding="utf-8"))


def folder_of(run: list[str]) -> str:
    return run[0] + "-conditional" * (len(run) > 1)


def name_of(found: dict[str, Any]) -> str:
    return found["toy"] + "-conditional" * found["conditional"]


def markdown(result: dict[str, Any]) -> str:
    """The page, from the results."""
    lines, rows = [HEAD], []
    for found in result["toys"]:
        name, conditional = name_of(found), found["conditional"]
        what = f"{found['toy']}, given the part" if conditional else name
        shown = "data, density of the flow and samples of the flow, side by side"
        lines.append(f"## {what}\n\n![{what}: {shown}](toys/{name}.png)\n")
        likelihood, gap = found["log_likelihood"], found["divergence"]
        rows.append(
            [
                what,
                with_error(likelihood["mean"], likelihood["se"]),
                f"−{found['entropy']:.4f}",
                with_error(gap["mean"], gap["se"]),
                f"{found['integral']:.4f}",
                bound(found["certificate"]["worst"]),
                f"{found['train_cpu_seconds']:.0f} s",
            ]
        )
    first = result["toys"][0]
    lines.append(NUMBERS.strip("\n").format(points=first["log_likelihood"]["points"], steps=first["steps"]) + "\n")
    heads = ["toy", "log-likelihood", "best possible", "divergence", "integral", "certificate", "CPU time"]
    return "\n".join([*lines, *table(heads, rows)]) + "\n" + SOURCE.format(**result)


def write(result: dict[str, Any]) -> None:
    """Write the results and the page of all toys that are there, in the order of `RUNS`."""
    order = [folder_of(run) for run in RUNS]
    result["toys"].sort(key=lambda found: order.index(name_of(found)))
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(markdown(result), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--at-once", type=int, default=2)
    options = parser.parse_args()
    result = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {"toys": []}
    if options.page:
        return write(result)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    result |= {"command": "python benchmarks/toys.py", "date": date, **facts()}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.at_once) as pool:
        for found in as_completed([pool.submit(train, run, Path(folder)) for run in RUNS]):
            others = [one for one in result["toys"] if name_of(one) != name_of(found.result())]
            result["toys"] = [*others, found.result()]
            write(result)


if __name__ == "__main__":
    main()
