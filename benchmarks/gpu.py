"""The measurements that need a GPU, in one process and within a budget of seconds.

python benchmarks/gpu.py OUT [--checkout FOLDER] [--images FILE] [--variant NAME=FILE.py:FUNCTION]

Writes OUT/gpu-LABEL.json after every row and prints a table last. It measures, in this order and as far as the
budget goes (what it does not reach is named):

- ceilings: TFLOP/s of a matrix product in each precision, TB/s of a copy;
- steps: milliseconds, images/s, peak memory, TFLOP/s, kernels and the share of a step in which one runs, of the
  variants in `gpu_variants.py` and of the published code, for `resflow` and the attentions at the paper's sizes;
- precision: the same step in float32, deterministic, TF32 and bfloat16, with the change of bits/dim and gradient on the
  same weights and noise, and the certificate;
- use: certificate, `tighten`, sampling 64 images and likelihood of 1000, against plain iteration and the published
  code;
- reference: the same as steps, of the plain autograd reference, which comes last as it takes longest.

A package before and after a change are two calls with PYTHONPATH at one and the other, and --label. --tiny runs all of
it at sizes of no interest, on a CPU too. Agreement of CUDA with the CPU in float64 is tests/test_cuda.py.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gpu_sections as sections
import published_code
import torch
from gpu_measure import ceilings, free
from gpu_variants import Variant, variants
from training_step import ROOT, table

from acf.runs.device import describe_device, select_device

SHAPES = {"1x28x28": (1, 28, 28), "3x32x32": (3, 32, 32)}
PAPER: dict[str, Any] = {"blocks": [16, 16, 16], "idim": 512}
TINY: dict[str, Any] = {"blocks": [1, 1, 3], "idim": 8}
TINY_SHAPES = {"1x16x16": (1, 16, 16)}
GRACE = 20
"""Seconds that a row which was begun in time may take beyond the budget."""
SECTIONS = ("ceilings", "steps", "precision", "use", "reference")
FORMATS = {
    "ms": ".1f",
    "host_ms": ".1f",
    "images_per_second": ".0f",
    "peak_gib": ".2f",
    "tflops": ".1f",
    "kernels": "d",
}
COLUMNS = {
    "steps": ("ms", "host_ms", "images_per_second", "peak_gib", "tflops", "kernels", "busy"),
    "precision": ("ms", "images_per_second", "loss_change", "gradient_change", "certificate"),
}
RESULT = ROOT / "benchmarks/results/gpu.json"
RUNS = """The rows come from several runs on machines with the same card. Their hosts differ, so ratios in which the
host has a part hold within one run only:"""
"""Where the file of a run is put to be part of docs/performance.md."""


class Report:
    """The rows found so far, written after each, and the seconds that are left."""

    def __init__(self, path: Path, budget: float, facts: dict[str, Any]) -> None:
        self.path, self._end = path, time.monotonic() + budget
        self.content: dict[str, Any] = {**facts, "rows": {}, "left_out": []}

    def time_for(self, name: str) -> bool:
        """Whether there is time left; otherwise notes that `name` was left out."""
        if time.monotonic() < self._end:
            return True
        self.content["left_out"].append(name)
        return False

    def add(self, section: str, name: str, row: dict[str, Any]) -> None:
        """Note a row, say so, and write the file."""
        self.content["rows"].setdefault(section, {})[name] = row
        self.path.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")
        shown = {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items() if isinstance(v, float | str)}
        print(f"{max(0, self._end - time.monotonic()):4.0f} s left | {section} | {name} | {shown}", flush=True)


def images_of(given: argparse.Namespace, shape: tuple[int, int, int], count: int, device: torch.device) -> torch.Tensor:
    """Images (count, C, H, W) in [0, 1): from a file of uint8 images that fits, otherwise noise.

    Every call gives the same ones.
    """
    generator = torch.Generator().manual_seed(0)
    if given.images is not None:
        stored = torch.load(given.images, weights_only=True)
        stored = stored["train"] if isinstance(stored, dict) else stored
        if tuple(stored.shape[1:]) == shape and len(stored) >= count:
            return (
                ((stored[:count] + torch.rand(count, *shape, generator=generator)) / 256).clamp(max=1 - 1e-7).to(device)
            )
    return torch.rand(count, *shape, generator=generator).to(device)


class OutOfTimeError(BaseException):
    """The budget and its grace are spent in the middle of a row; no `except Exception` takes it for a row's error."""


def stop_after(seconds: float) -> None:
    """Raise `OutOfTimeError` in the main thread after that time."""

    def stop(*_: object) -> None:
        raise OutOfTimeError

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)


class Session:
    """What is measured on which device, from the command line."""

    def __init__(self, given: argparse.Namespace, report: Report, device: torch.device) -> None:
        self.given, self.report, self.device = given, report, device
        self.size, self.shapes, self.batch = (TINY, TINY_SHAPES, 4) if given.tiny else (PAPER, SHAPES, 64)
        self.resflow = published_code.load(given.checkout) if given.checkout else None

    def run(self) -> None:
        """Run the sections that were asked for, in the order of `SECTIONS`."""
        for section in SECTIONS:
            if section in self.given.sections and self.report.time_for(section):
                free(self.device)
                getattr(self, section)()

    def ceilings(self) -> None:
        self.report.add("ceilings", "all", ceilings(self.device, 256 if self.given.tiny else 8192))

    def steps(self) -> None:
        self._steps({name: v for name, v in variants(self.given.variant).items() if name != "reference"}, True)

    def reference(self) -> None:
        self._steps({"reference": variants([])["reference"]}, False)

    def _steps(self, found: dict[str, Variant], published: bool) -> None:
        """Measure steps of the variants that are wanted, for all kinds and shapes."""
        chosen = {name: variant for name, variant in found.items() if self._wanted(name)}
        for kind in self.given.kinds:
            theirs = self.resflow if published and kind == "resflow" and self._wanted("published") else None
            for name, shape in self.shapes.items():
                x = images_of(self.given, shape, self.batch, self.device)
                settings = sections.settings_of(shape, kind, self.size)
                rows = sections.training_rows(settings, x, chosen, theirs, self.given.seconds)
                self._add_all("steps", f"{kind} {name}", rows)

    def precision(self) -> None:
        x, settings, name = self._resflow(self.batch)
        self._add_all("precision", name, sections.precision_rows(settings, x, self.resflow, self.given.seconds))

    def use(self) -> None:
        images, settings, name = self._resflow(20 if self.given.tiny else 1000)
        steps, samples = (2, 4) if self.given.tiny else (20, 64)
        self._add_all("use", name, sections.use_rows(settings, images, self.resflow, steps, samples))

    def _resflow(self, count: int) -> tuple[torch.Tensor, dict[str, Any], str]:
        """Images and settings of `resflow` at the first of the shapes."""
        name, shape = next(iter(self.shapes.items()))
        x = images_of(self.given, shape, count, self.device)
        return x, sections.settings_of(shape, "resflow", self.size), f"resflow {name}"

    def _wanted(self, name: str) -> bool:
        return not self.given.only or name in self.given.only

    def _add_all(self, section: str, prefix: str, rows: Iterator[tuple[str, dict[str, Any]]]) -> None:
        """Add rows until there is no time left; each is measured when it is asked for."""
        while self.report.time_for(f"{section}: {prefix}, from number {self._count(section, prefix) + 1} on"):
            found = next(rows, None)
            if found is None:
                return
            self.report.add(section, f"{prefix} {found[0]}", found[1])

    def _count(self, section: str, prefix: str) -> int:
        return sum(name.startswith(f"{prefix} ") for name in self.report.content["rows"].get(section, {}))


NOTES = """## On a GPU

What `benchmarks/gpu.py` measured (torch {torch}, CUDA {cuda}, driver {driver}). Training steps at the paper's sizes
(blocks 16-16-16, idim 512, batch 64) in float32 with TF32 off: forward pass and log-determinant, backward pass,
clipping, Adam, norm update and moving average, in a row of steps that is not interrupted. *Ours* is the package,
*reference* its plain autograd version, *published* the code published with arXiv 1906.02735. *Host ms* is what the
calls of a step take to return, *graphs* the package with the kernels of its blocks recorded and replayed, as the
trainer has them on CUDA; *busy* the share of a step in which a kernel runs (of one step with the same random
numbers, with and without profiler).

"""


def summary(content: dict[str, Any]) -> list[str]:
    """Short tables of what was found, to end the program's output with."""
    lines = [
        f"# {content['label']}: {content['machine']}, torch {content['torch']}, {content['date']}",
        *_tables(content),
    ]
    if content["left_out"]:
        lines.append("left out for want of time: " + "; ".join(content["left_out"]))
    return lines


def section(result: dict[str, Any]) -> list[str]:
    """Part of the page, from a file of results that was kept as `RESULT`."""
    runs = [f"- {run['what']}: `{run['command']}`, {run['date']}" for run in result.get("runs", [])]
    left = f"Not measured for want of time: {', '.join(result['left_out'])}." if result["left_out"] else ""
    return [NOTES.format(**result), *_tables(result), *(["", RUNS, "", *runs] if runs else []), "", left]


def _tables(content: dict[str, Any]) -> list[str]:
    rows, lines = content["rows"], []
    for name, keys in COLUMNS.items():
        found = rows.get(name, {})
        if found:
            lines += ["", *table([name, *keys], [[row, *_cells(found[row], keys)] for row in found])]
    lines.append("")
    for name in ("ceilings", "use"):
        lines += [
            f"- {name}, {row}: {found.get('error') or _short(found)}" for row, found in rows.get(name, {}).items()
        ]
    return lines


def _cells(row: dict[str, Any], keys: tuple[str, ...]) -> list[str]:
    if "ms" not in row:
        return [row.get("error", "")[:80], *[""] * (len(keys) - 1)]
    return ["" if row.get(key) is None else f"{row[key]:{FORMATS.get(key, '.3g')}}" for key in keys]


def _short(row: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in row.items() if isinstance(value, int | float))


def facts(given: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """What the results were measured with."""
    return {
        "label": given.label,
        "command": "python " + " ".join(sys.argv),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_device(device),
        "load_before": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": _driver(),
    }


def _driver() -> str | None:
    path = Path("/proc/driver/nvidia/version")
    return path.read_text().splitlines()[0] if path.exists() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the results")
    parser.add_argument("--checkout", type=Path, help="checkout of the published code, to be measured too")
    parser.add_argument("--images", type=Path, help="uint8 images (N, C, H, W) in a file of torch, or a dict's `train`")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--label", default="new", help="name of the package that is measured")
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS), choices=SECTIONS)
    parser.add_argument("--kinds", nargs="+", default=list(sections.KINDS), choices=sections.KINDS)
    parser.add_argument("--variant", action="append", default=[], help="NAME=FILE.py:FUNCTION (gpu_variants.py)")
    parser.add_argument("--only", nargs="+", help="names of the variants that are measured, `published` being one")
    parser.add_argument("--budget", type=float, default=200, help="seconds after which nothing new is begun")
    parser.add_argument("--seconds", type=float, default=2, help="seconds of one row of steps")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try the program")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    device = select_device(given.device)
    report = Report(given.out / f"gpu-{given.label}.json", given.budget, facts(given, device))
    stop_after(given.budget + GRACE)
    try:
        Session(given, report, device).run()
    except OutOfTimeError:
        report.content["left_out"].append("what was being measured when the time was up")
    print("\n".join(summary(report.content)))


if __name__ == "__main__":
    main()
