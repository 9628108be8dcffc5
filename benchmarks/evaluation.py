"""Time in which evaluation reaches a given standard error, against the published estimator.

python benchmarks/evaluation.py [VARIANT ...], after `acf train --experiment digits --variant VARIANT --seed 0`; by
default for all that are trained. Writes results/evaluation.json beside this file and docs/tables/evaluation.md.

Cost times variance is the time to a given standard error. Time is that of a flow's forward pass in evaluation mode, the
settings taking turns; variance is that of repeated draws at the same dequantised images, and with the dequantisation
noise added, which no estimator removes. On digits the means are compared with exact log-determinants. A flow of the
shape of Fashion-MNIST, trained here for a few steps, shows whether what pays on 64 values pays on 784.
"""

import copy
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor
from training_step import table

import acf
from acf import data
from acf.flows.dequantise import dequantise
from acf.flows.flow import Flow
from acf.flows.logdet import RouletteEstimator, exact_log_det, value_and_neumann
from acf.flows.residual import ResidualBlock
from acf.flows.storage import load, weights_hash
from acf.runs.device import describe_device
from acf.settings.config import EvaluationLogDetConfig
from acf.settings.params import Params

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "python benchmarks/evaluation.py"
RESULT, TABLE = ROOT / "benchmarks/results/evaluation.json", ROOT / "docs/tables/evaluation.md"
SEED, TIMINGS, WARM = 0, 9, 2
FASHION = {"shape": [1, 28, 28], "blocks": [3, 3, 3], "idim": 32, "fc_blocks": 1, "fc_width": 64}
FASHION_STEPS, FASHION_BATCH = 300, 32

Settings = dict[str, Any]
PUBLISHED: Settings = {"exact_terms": 20, "parameter": 0.5, "probes": 1, "probe": "rademacher"}
CHOSEN: Settings = Params(ROOT / "params.yaml").raw["defaults"]["evaluation"]["log_det"]
ROWS: list[tuple[str, Settings]] = [
    ("published code, Gaussian probe", PUBLISHED | {"probe": "gaussian"}),
    ("published code", PUBLISHED),
    ("published setting", PUBLISHED),
    *(("fewer exact terms", PUBLISHED | {"exact_terms": n, "parameter": 0.4}) for n in (2, 4, 8)),
    *(("patterns", PUBLISHED | {"exact_terms": n, "parameter": 0.4, "probes": 4}) for n in (2, 4, 6, 8)),
    *(("patterns", PUBLISHED | {"exact_terms": 6, "parameter": 0.4, "probes": p}) for p in (2, 8, 16)),
]
BASES = ("published setting", "published code")


def prepared(flow: Flow, label: str, settings: Settings) -> Flow:
    """A copy of the flow that estimates so; as the published code, with one length for the batch, by its name."""
    config = EvaluationLogDetConfig(**settings)
    flow = copy.deepcopy(flow).eval()
    flow.use_evaluation_estimator(config)
    if label.startswith("published code"):
        replace_blocks(flow, partial(eager, RouletteEstimator.from_config(config)))
    return flow


def replace_blocks(flow: Flow, forward: Callable[[ResidualBlock, Tensor], tuple[Tensor, Tensor]]) -> None:
    for block in flow.contractive_blocks().values():
        block.forward = partial(forward, block)  # type: ignore[method-assign]


def eager(estimator: RouletteEstimator, block: ResidualBlock, x: Tensor) -> tuple[Tensor, Tensor]:
    """Every product a call of automatic differentiation, all samples to the same length (arXiv 1906.02735)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        y, value, _ = value_and_neumann(block.branch, x, estimator.weighted_probe(x, per_sample=False))
    return (x + y).detach(), value


def exact(block: ResidualBlock, x: Tensor) -> tuple[Tensor, Tensor]:
    return x + block.branch(x), exact_log_det(block.branch, x).detach()


def expected_products(settings: Settings) -> float:
    """Vector-Jacobian products per sample and block."""
    used = [max(1, settings["probes"] // 2**k) for k in range(settings["exact_terms"])]
    return sum(used) + (1 - settings["parameter"]) / settings["parameter"]


@torch.no_grad()
def repeated(flow: Flow, x: Tensor, draws: int, batch: int) -> Tensor:
    """Log-determinants (draws, images) of x (images, ...), in batches of `batch`."""
    many = x.repeat(draws, *[1] * (x.dim() - 1))
    return torch.cat([flow(part)[1] for part in many.split(batch)]).double().view(draws, len(x))


@torch.no_grad()
def dequantisation_variance(flow: Flow, images: Tensor, draws: int, batch: int, own: float) -> float:
    """Variance of log p(x) of an image over the dequantisation noise: of all noise, less the estimator's `own`."""
    many = images.repeat(draws, 1, 1, 1)
    x = dequantise(many, flow.config.levels, torch.Generator().manual_seed(SEED + 1))
    log_prob = torch.cat([flow.log_prob(part) for part in x.split(batch)]).double().view(draws, len(images))
    return float(log_prob.var(0).mean()) - own


def seconds(flows: list[Flow], x: Tensor) -> list[list[float]]:
    """Seconds of each flow's forward pass, warm; the flows take turns, so that all see the same machine."""
    times: list[list[float]] = [[] for _ in flows]
    with torch.no_grad():
        for turn in track(range(WARM + TIMINGS), "timing", transient=True):
            for flow, own in zip(flows, times, strict=True):
                start = time.perf_counter()
                flow(x)
                if turn >= WARM:
                    own.append(time.perf_counter() - start)
    return times


def measure(flow: Flow, images: Tensor, timed: int, counted: int, draws: int, truth: bool) -> dict[str, Any]:
    """All rows for one flow: `timed` images in a timing, `counted` images with `draws` draws in a variance."""
    torch.manual_seed(SEED)
    flows = [prepared(flow, label, settings) for label, settings in ROWS]
    x = dequantise(images[:timed], flow.config.levels, torch.Generator().manual_seed(SEED))
    times = seconds(flows, x)
    exact_values = None
    if truth:
        dense = copy.deepcopy(flow).eval()
        replace_blocks(dense, exact)
        exact_values = repeated(dense, x[:counted], 1, counted)
    rows = []
    for (label, settings), own, each in zip(ROWS, flows, times, strict=True):
        values = repeated(own, x[:counted], draws, timed)
        row = {
            "label": label,
            **settings,
            "chosen": EvaluationLogDetConfig(**settings) == EvaluationLogDetConfig(**CHOSEN),
        }
        row |= {"products": expected_products(settings), "seconds": each}
        row |= {"variance": float(values.var(0).mean())}
        if exact_values is not None:
            row["bias"] = float((values.mean(0) - exact_values).mean())
            row["bias_se"] = float(values.mean(1).std()) / math.sqrt(draws)
        rows.append(row)
    quietest = min(range(len(rows)), key=lambda i: rows[i]["variance"])
    noise = dequantisation_variance(flows[quietest], images[:counted], draws, timed, rows[quietest]["variance"])
    facts = {"shape": list(flow.shape), "blocks": len(flow.contractive_blocks()), "images_per_batch": timed}
    return {**facts, "images": counted, "draws": draws, "dequantisation_variance": noise, "rows": rows}


def fashion_flow() -> Flow:
    """A small flow after a few steps of training."""
    torch.manual_seed(SEED)
    flow = acf.build(FASHION)
    images, generator = data.load("fashion-mnist", "train", ROOT / "data"), torch.Generator().manual_seed(SEED)
    optimiser = torch.optim.Adam(flow.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, FASHION_STEPS, pct_start=0.1)
    for _ in track(range(FASHION_STEPS), "training", transient=True):
        chosen = torch.randint(len(images), (FASHION_BATCH,), generator=generator)
        loss = -flow.log_prob(dequantise(images[chosen], flow.config.levels, generator)).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 50.0)
        optimiser.step()
        schedule.step()
        flow.renormalise()
    return flow.eval()


def main() -> None:
    found = sorted(path.parent for path in (ROOT / "models").glob("digits*/*/seed0/model.safetensors"))
    folders = [folder for folder in found if not sys.argv[1:] or folder.parent.name in sys.argv[1:]]
    digits, fashion = (data.load(name, "test", ROOT / "data") for name in ("digits", "fashion-mnist"))
    result = {"command": COMMAND, "date": datetime.now(UTC).isoformat(timespec="seconds"), "seed": SEED}
    result |= {"machine": describe_device(torch.device("cpu")), "torch": torch.__version__, "timings": TIMINGS}
    result |= {"load_before": round(os.getloadavg()[0], 1), "chosen": CHOSEN}
    flows: dict[str, dict[str, Any]] = {}
    for folder in folders:
        print(folder.parent.name, flush=True)
        flows[f"digits, {folder.parent.name}"] = {
            "weights_sha256": weights_hash(folder),
            **measure(load(folder), digits, timed=256, counted=64, draws=100, truth=True),
        }
    print("fashion-mnist", flush=True)
    trained = {"training": {"steps": FASHION_STEPS, "batch": FASHION_BATCH, **FASHION}}
    flows["fashion-mnist, small"] = trained | measure(fashion_flow(), fashion, 32, 8, 40, truth=False)
    result["flows"] = flows
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    TABLE.write_text(markdown(result), encoding="utf-8")


NOTES = """Generated by `{command}` ({date}, torch {torch}, {machine}).
Raw numbers, every timing among them, are in `benchmarks/results/evaluation.json`.

# Evaluation: time to a given standard error

*Seconds* is the median of {timings} warm forward passes of a whole flow on one batch; *variance* that of the
log-determinant of one image over repeated draws, in nats^2, mean over images; *products* are vector-Jacobian products
per sample and block without the graph's evaluation. Time to a given standard error is seconds x variance. The *gain* is
its ratio to the published setting (20 exact terms, geometric 0.5, one Rademacher probe) in the same code; *over the
published code* its ratio to the same setting with one call of automatic differentiation per product and one length per
batch. *With dequantisation* adds the variance of log p(x) over the dequantisation noise, which no estimator
removes: what is then gained is the smaller product count, and the variance that is left to gain. *Bias* is the mean
over images and draws less the exact log-determinant.

*Patterns*: several probes of the first term, one random vector of signs times fixed patterns that make couplings
between neighbours cancel (`acf.flows.probes`); half as many of the second term, and so on. Bold: what
`params.yaml` uses.

## Summary

Seconds to a standard error of {target:g} bits/dim, of the estimator alone, on one data set's mean.

"""
SETTING = """{size}, {blocks} residual blocks, {images_per_batch} images per batch; {images} images with {draws} draws
each; variance over the dequantisation noise {dequantisation_variance:.2f}."""
TARGET = 0.001
HEAD = ["estimator", "exact terms", "p", "probes", "products", "seconds", "variance", "gain", "with dequantisation"]
HEAD += ["over the published code", "the same, with dequantisation"]


def markdown(result: dict[str, Any]) -> str:
    """The tables, from the results."""
    lines = [NOTES.format(**result, target=TARGET)]
    head = ["flow", *BASES, "params.yaml", "gain", "with dequantisation", "over the published code"]
    lines += table(head, [_summary(name, flow) for name, flow in result["flows"].items()])
    for name, flow in result["flows"].items():
        size = "x".join(map(str, flow["shape"]))
        lines += ["", f"## {name}", ""]
        lines.append(SETTING.format(**flow, size=size))
        truth = "bias" in flow["rows"][0]
        rows = [_row(row, flow) for row in flow["rows"]]
        lines += ["", *table([*HEAD, "bias ± SE"] if truth else HEAD, rows)]
    return "\n".join([*lines, ""])


def _effort(row: dict[str, Any], noise: float = 0.0) -> float:
    return statistics.median(row["seconds"]) * (row["variance"] + noise)


def _gains(row: dict[str, Any], flow: dict[str, Any], base: str) -> list[float]:
    """Ratio of the base's effort to the row's, without and with dequantisation noise."""
    against = next(r for r in flow["rows"] if r["label"] == base)
    return [_effort(against, noise) / _effort(row, noise) for noise in (0.0, flow["dequantisation_variance"])]


def _summary(name: str, flow: dict[str, Any]) -> list[str]:
    by_label = {row["label"]: row for row in flow["rows"]}
    chosen = next(row for row in flow["rows"] if row["chosen"])
    evaluations = (TARGET * math.prod(flow["shape"]) * math.log(2)) ** -2 / flow["images_per_batch"]
    efforts = [f"{evaluations * _effort(row):.3g}" for row in (*(by_label[base] for base in BASES), chosen)]
    gains = [*_gains(chosen, flow, BASES[0]), _gains(chosen, flow, BASES[1])[0]]
    return [name, *efforts, *(f"{gain:.1f}" for gain in gains)]


def _row(row: dict[str, Any], flow: dict[str, Any]) -> list[str]:
    numbers = [f"{row['products']:.3g}", f"{statistics.median(row['seconds']):.3f}", f"{row['variance']:.3g}"]
    gains = [f"{gain:.1f}" for base in BASES for gain in _gains(row, flow, base)]
    label = f"**{row['label']}**" if row["chosen"] else row["label"]
    cells = [label, str(row["exact_terms"]), f"{row['parameter']:g}", str(row["probes"]), *numbers, *gains]
    return [*cells, f"{row['bias']:+.3f} ± {row['bias_se']:.3f}"] if "bias" in row else cells


if __name__ == "__main__":
    main()
