"""Optimisers at equal steps: AdamW, Muon, and what of the difference is due to which part.

python benchmarks/optimisers.py [--case NAME], after `acf prepare` of digits and fashion-mnist

Each case is a flow trained in this process with one thread, its gradients, schedule and moving average those of
`acf train`. Cases of one flow start from the same weights and see the same batches and noise, so differences per test
image are paired; their standard error is over test images and says nothing about the seed of training. Times are CPU
time of this process; on a machine that does other work only their ratios mean something. Finished cases are kept.
Writes benchmarks/results/optimisers.json and docs/tables/optimisers.md.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from acf import data
from acf.evaluation.likelihood import measure
from acf.flows.build import build
from acf.flows.dequantise import bits_per_dim_of
from acf.flows.flow import Flow
from acf.lipschitz.normalised import Normalised
from acf.runs.ranks import BatchShare
from acf.settings.config import ModelConfig, TrainingConfig
from acf.training.average import MovingAverage, certified_average
from acf.training.batches import Batches, training_input
from acf.training.muon import Muon
from acf.training.optimiser import JointOptimiser, adamw, learning_rate, muon, scale_down, set_learning_rate

ROOT = Path(__file__).resolve().parents[1]
RESULT, TABLE = ROOT / "benchmarks/results/optimisers.json", ROOT / "docs/tables/optimisers.md"
SMALL = {"warmup_steps": 20, "ema_decay": 0.95}
FLOWS: dict[str, dict[str, Any]] = {  # on top of the digits experiment of params.yaml
    "digits, 4 blocks": {"dataset": "digits", "model": {"blocks": [4], "fc_blocks": 1}, "training": SMALL},
    "digits, 12 blocks": {"dataset": "digits", "model": {}, "training": {}},
    "fashion-mnist, 2-2 blocks": {
        "dataset": "fashion-mnist",
        "images": 256,
        "model": {"blocks": [2, 2], "fc_blocks": 1, "idim": 64},
        "training": {**SMALL, "batch_size": 16, "validation_images": 64},
    },
}
Case = tuple[str, str, float, float, int]  # flow, optimiser, learning rate of normalised weights, of all others, steps
PROXY, DEMO, FASHION = FLOWS
CASES: list[Case] = [
    *((PROXY, "adamw", rate, rate, 150) for rate in (0.04, 0.08)),
    (PROXY, "adamw", 0.04, 0.16, 150),
    (PROXY, "adamw, scaled down", 0.01, 0.04, 150),
    (PROXY, "adamw, scaled down", 0.01, 0.16, 150),
    (PROXY, "muon, not scaled down", 0.05, 0.04, 150),
    (PROXY, "muon, not scaled down", 0.15, 0.04, 150),
    *((PROXY, "muon", rate, 0.04, 150) for rate in (0.025, 0.05, 0.15)),
    *((PROXY, "muon", 0.05, rate, 150) for rate in (0.02, 0.08, 0.16, 0.32)),
    (DEMO, "adamw", 0.04, 0.04, 600),
    (DEMO, "adamw", 0.04, 0.04, 200),
    (DEMO, "muon", 0.05, 0.16, 300),
    (FASHION, "adamw", 0.04, 0.04, 100),
    *((FASHION, "muon", 0.05, rate, 100) for rate in (0.04, 0.16)),
]
PACE: dict[int, dict[str, Any]] = {  # of the demo's flow, by steps
    200: {"warmup_steps": 50, "ema_decay": 0.98},
    300: {"warmup_steps": 30, "ema_decay": 0.97},
    600: {"warmup_steps": 50, "ema_decay": 0.98},
}


def optimiser(flow: Flow, config: TrainingConfig, name: str, rate: float) -> Any:
    """Return an optimiser whose normalised weights have the peak learning rate `rate`."""
    if name == "muon":
        return muon(flow, config)
    if name == "adamw" and rate == config.learning_rate:
        return adamw(flow, config)
    layers = [m for m in flow.modules() if isinstance(m, Normalised)]
    weights = {layer.weight for layer in layers}
    make: Callable[..., torch.optim.Optimizer] = Muon if name.startswith("muon") else torch.optim.AdamW
    options: dict[str, Any] = {} if make is Muon else {"betas": config.betas, "weight_decay": config.weight_decay}
    first = make([p for p in flow.parameters() if p in weights], lr=rate, **options)
    first.param_groups[0]["relative_rate"] = rate / config.learning_rate
    if name.endswith(", scaled down"):
        first.register_step_post_hook(lambda *_: scale_down(layers))
    others = [p for p in flow.parameters() if p not in weights]
    return JointOptimiser(first, torch.optim.AdamW(others, betas=config.betas, weight_decay=config.weight_decay))


def merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in more.items():
        inner = isinstance(value, dict) and isinstance(base.get(key), dict)
        result[key] = merged(base[key], value) if inner else value
    return result


def settings(case: Case) -> tuple[ModelConfig, TrainingConfig]:
    flow, _, rate, others, steps = case
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    sections = [params["defaults"], params["experiments"]["digits"], FLOWS[flow]]
    model: dict[str, Any] = {}
    training: dict[str, Any] = {}
    for section in sections:
        model, training = merged(model, section["model"]), merged(training, section["training"])
    training |= PACE.get(steps, {}) | {"steps": steps}
    training |= {"optimiser": "muon", "learning_rate": others, "muon": {"learning_rate": rate, "momentum": 0.95}}
    config = TrainingConfig.model_validate(training)
    manifest = data.read_manifest(FLOWS[flow]["dataset"], ROOT / "data")
    model |= {"shape": manifest.shape, "levels": manifest.levels, "training_log_det": config.log_det.model_dump()}
    return ModelConfig.model_validate(model), config


def trained(case: Case) -> dict[str, Any]:
    """Train, and return test bits/dim of each image."""
    model, config = settings(case)
    dataset, images = FLOWS[case[0]]["dataset"], FLOWS[case[0]].get("images")
    batches = Batches(data.load(dataset, "train", ROOT / "data", model.levels), config.validation_images, 0)
    torch.manual_seed(0)
    flow = build(model)
    average = MovingAverage(flow, config.ema_decay)
    parts = optimiser(flow, config, case[1], case[2])
    flow.train()
    losses: list[Tensor] = []
    for step in range(config.steps):
        parts.zero_grad()
        position, size = step * config.batch_size, config.batch_size
        x = training_input(batches.batch_at(position, size), model.levels, False, BatchShare(0, size, size))
        losses.append(gradient(flow, x))
        nn.utils.clip_grad_norm_(flow.parameters(), config.clip_norm)
        set_learning_rate(parts, learning_rate(step, config))
        parts.step()
        flow.renormalise()
        average.update_parameters(flow)
    best, certificate = certified_average(average)
    test = data.load(dataset, "test", ROOT / "data", model.levels)[:images]
    torch.manual_seed(0)
    values = measure(best, test, 1 if images else 2, 256, torch.Generator().manual_seed(0)).bits_per_dim.mean(0)
    return {
        "case": case,
        "bits_per_dim": values.tolist(),
        "train_bits_per_dim": float(torch.stack(losses[-50:]).mean()),
        "certificate": certificate.worst,
    }


def gradient(flow: Flow, x: Tensor) -> Tensor:
    """Add the gradient for images x to that of the parameters, and return the loss in bits/dim."""
    loss = bits_per_dim_of(flow.log_prob(x), flow.config).mean()
    loss.backward()
    return loss.detach()


def cost(rounds: int = 10) -> dict[str, float]:
    """Return the CPU milliseconds of a gradient of the demo's flow and of each optimiser's step, taken in turn."""
    cases = {name: (DEMO, name, 0.04, 0.04, 600) for name in ("adamw", "muon")}
    model, config = settings(cases["adamw"])
    torch.manual_seed(0)
    flow = build(model)
    flow.train()
    x = torch.rand(config.batch_size, *model.shape)
    gradient(flow, x)
    steps: dict[str, Callable[[], Any]] = {"gradient": lambda: gradient(flow, x)}
    for name, case in cases.items():
        parts = optimiser(flow, config, name, case[2])
        set_learning_rate(parts, 1e-6)
        parts.step()
        steps[name] = parts.step
    seconds = dict.fromkeys(steps, 0.0)
    for name, step in list(steps.items()) * rounds:
        start = time.process_time()
        step()
        seconds[name] += time.process_time() - start
    return {name: 1e3 * value / rounds for name, value in seconds.items()}


def mean(values: Tensor) -> str:
    return f"{float(values.mean()):.3f} ± {float(values.std()) / math.sqrt(len(values)):.3f}"


def markdown(results: dict[str, Any]) -> str:
    text = [
        "Generated by `python benchmarks/optimisers.py`, which says how. Test bits/dim; differences to the first row\n"
        "of each flow are paired over test images. *Scaled down*: after each step weights are scaled down to their\n"
        "coefficients, as `muon` does always. One seed of training; rates were chosen on these numbers.\n"
    ]
    for flow in FLOWS:
        rows = [row for row in results["cases"] if row["case"][0] == flow]
        if not rows:
            continue
        text.append(f"## {flow}\n")
        text.append("| optimiser | rate of weights | of others | steps | bits/dim | less first | certificate |")
        text.append("|---|---:|---:|---:|---:|---:|---:|")
        first = torch.tensor(rows[0]["bits_per_dim"], dtype=torch.float64)
        for row in rows:
            values = torch.tensor(row["bits_per_dim"], dtype=torch.float64)
            _, name, rate, others, steps = row["case"]
            less = "-" if row is rows[0] else mean(values - first)
            text.append(
                f"| {name} | {rate:g} | {others:g} | {steps} | {mean(values)} | {less} | {row['certificate']:.4f} |"
            )
        text.append("")
    cost = results["cost"]
    text.append(
        f"CPU milliseconds on digits, 12 blocks, taken in turn with one thread: gradient {cost['gradient']:.0f}, step "
        f"of adamw {cost['adamw']:.0f}, of muon {cost['muon']:.0f}.\n"
    )
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=int, action="append", help="number of a case in CASES; by default all")
    chosen = parser.parse_args().case
    torch.set_num_threads(1)
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {"cases": []}
    rows: list[dict[str, Any]] = results["cases"]
    for number, case in enumerate(CASES):
        if (chosen is None or number in chosen) and all(tuple(row["case"]) != case for row in rows):
            rows.append(trained(case))
            rows.sort(key=lambda row: CASES.index(tuple(row["case"])))
            RESULT.write_text(json.dumps(results))
            print(case, mean(torch.tensor(rows[-1]["bits_per_dim"])))
    if "cost" not in results:
        results["cost"] = cost()
    RESULT.write_text(json.dumps(results))
    TABLE.write_text(markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
