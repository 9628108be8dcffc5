"""Activations, branches and blocks at equal seconds of training and equal parameters.

python benchmarks/layers.py --dataset digits [--seconds 120] [--seeds 0 1 2] [--variant NAME ...] [--work FOLDER]

after `acf prepare` of digits, fashion-mnist and patches; run it once for each data set. Each run is a flow trained in
this process with one thread, its loss, optimiser, schedule and moving average those of `acf train`, with the rates of
the digits experiment for all variants. A variant is a few settings on top of the model of the data set's experiment;
its width is chosen for the number of parameters of that model, within 2 %. Its number of steps is the budget over the
CPU seconds of one of its steps, timed on a short training that is thrown away, and the schedule, a cosine after a tenth
of warm-up, is that of so many steps. Where the first seed's training takes more or less than the budget by over 5 % it
is done once more, with as many steps as it has time for. The table has the seconds that were used, of training alone.

fashion-mnist-14 is Fashion-MNIST with squares of 2x2 pixels averaged, rounded to the nearest of 256 grey levels. All
models of a data set are measured on the same images, held out of the training data, with the same noise of
dequantisation, so differences are paired over images; test images are not looked at, as settings are chosen here.
Errors are those of `acf.reporting.paired_differences`, over images and seeds. Finished runs are kept in the work
folder, so that processes may do different variants side by side; a last call without --variant makes the table.
Writes benchmarks/results/layers.json and docs/tables/layers.md.
"""

import argparse
import json
import statistics
import time
from bisect import bisect_left
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from training_step import facts, table

from acf import data
from acf.evaluation.likelihood import measure
from acf.flows.build import build
from acf.flows.dequantise import bits_per_dim_of
from acf.reporting.paired_differences import Difference, Row, difference, training_spread
from acf.runs.ranks import BatchShare
from acf.settings.config import ModelConfig, TrainingConfig
from acf.training.average import MovingAverage, certified_average
from acf.training.batches import Batches, training_input
from acf.training.optimiser import build_optimiser, learning_rate, set_learning_rate

ROOT = Path(__file__).resolve().parents[1]
RESULT, TABLE = ROOT / "benchmarks/results/layers.json", ROOT / "docs/tables/layers.md"
COMMAND = "python benchmarks/layers.py"
BASE = "lipswish"
VARIANTS: dict[str, dict[str, Any]] = {  # settings of the model
    BASE: {"activation": "lipswish"},
    "clipswish": {"activation": "clipswish"},
    "cpila": {"activation": "cpila"},
    "potential": {"branch": "potential", "activation": "lipswish"},
    "dense, clipswish": {"branch": "dense", "activation": "clipswish"},
    "dense, cpila": {"branch": "dense", "activation": "cpila"},
    "monotone, lipswish": {"block": "monotone", "activation": "lipswish"},
    "monotone, cpila": {"block": "monotone", "activation": "cpila"},
}
FLOWS: dict[str, dict[str, Any]] = {  # named as the experiments of params.yaml whose models they have
    "digits": {"of": "digits", "draws": 4, "images": 300},
    "fashion-mnist-14": {"of": "fashion-mnist", "draws": 1, "images": 1000},
    "patches": {"of": "patches", "draws": 1, "images": 300},
}
TOLERANCE = {"parameters": 0.02, "seconds": 0.05}
TIMED = (10, 30)  # steps of a training that is timed: those before the first count as starting up


def settings(
    dataset: str, variant: dict[str, Any], width: int | None = None, fc_width: int | None = None
) -> dict[str, Any]:
    """Return the settings of the experiment's model with those of a variant, and these widths where they are given."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    manifest = data.read_manifest(FLOWS[dataset]["of"], ROOT / "data")
    channels, height, side = manifest.shape
    shape = (channels, height // 2, side // 2) if dataset.endswith("-14") else manifest.shape
    model = {**params["defaults"]["model"], "shape": shape, "levels": manifest.levels}
    model["training_log_det"] = params["defaults"]["training"]["log_det"]
    for more in (params["experiments"][dataset]["model"], variant):
        for key, value in more.items():
            model[key] = {**model[key], **value} if isinstance(value, dict) else value
    if width is not None and model["branch"] == "dense":
        model["dense"] = {**model["dense"], "growth": width}
    elif width is not None:
        model["idim"] = width
    if fc_width is not None:
        model["fc_width"] = fc_width
    return model


def parameters(model: dict[str, Any]) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build(model).parameters())


def fitted(dataset: str, variant: dict[str, Any]) -> ModelConfig:
    """Return the variant of the width at which its number of parameters is nearest to that of the experiment's flow.

    Where that is too far, as the growth of dense branches comes in coarse steps, the width of fully connected blocks
    is changed, too.

    Raises:
        ValueError: no widths come near enough.
    """
    target = parameters(settings(dataset, {}))

    def distance(*widths: int) -> float:
        return abs(parameters(settings(dataset, variant, *widths)) / target - 1)

    dense = settings(dataset, variant)["branch"] == "dense"
    widths = range(8, 400, 2 if dense else 1)
    above = bisect_left(widths, target, key=lambda width: parameters(settings(dataset, variant, width)))
    width = min(widths[max(above - 1, 0) : above + 1], key=distance)
    best: tuple[int, ...] = (width,)
    if distance(width) > TOLERANCE["parameters"]:
        best = min(((width, fc_width) for fc_width in range(32, 129, 4)), key=lambda pair: distance(*pair))
    if distance(*best) > TOLERANCE["parameters"]:
        raise ValueError(f"{variant} cannot be built with the parameters of the experiment {dataset}, within 2 %")
    return ModelConfig.model_validate(settings(dataset, variant, *best))


def schedule(dataset: str, steps: int) -> TrainingConfig:
    """Return the training of the digits experiment over so many steps."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    training = params["defaults"]["training"] | params["experiments"]["digits"]["training"]
    pace = {"steps": steps, "warmup_steps": max(1, steps // 10), "ema_decay": max(0.0, 1 - 10 / steps)}
    pace["validation_images"] = FLOWS[dataset]["images"]
    return TrainingConfig.model_validate(training | pace)


def images(dataset: str) -> Tensor:
    """Return all training images, uint8 (N, C, H, W)."""
    whole = data.load(FLOWS[dataset]["of"], "train", ROOT / "data")[:]
    if not dataset.endswith("-14"):
        return whole
    squares = whole.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2))
    return ((squares.sum((-3, -1), dtype=torch.int32) + 2) // 4).to(torch.uint8)


def trained(model: ModelConfig, config: TrainingConfig, train: Tensor, seed: int) -> tuple[MovingAverage, list[float]]:
    """Train, and return the moving average of the flow and the CPU seconds of every step."""
    batches = Batches(train, config.validation_images, seed)
    torch.manual_seed(seed)
    flow = build(model)
    average = MovingAverage(flow, config.ema_decay)
    optimiser = build_optimiser(flow, config)
    flow.train()
    size, seconds = config.batch_size, []
    for step in range(config.steps):
        start = time.process_time()
        optimiser.zero_grad()
        x = training_input(batches.batch_at(step * size, size), model.levels, False, BatchShare(0, size, size))
        bits_per_dim_of(flow.log_prob(x), flow.config).mean().backward()
        nn.utils.clip_grad_norm_(flow.parameters(), config.clip_norm)
        set_learning_rate(optimiser, learning_rate(step, config))
        optimiser.step()
        flow.renormalise()
        average.update_parameters(flow)
        seconds.append(time.process_time() - start)
    return average, seconds


def seconds_of_a_step(dataset: str, model: ModelConfig) -> float:
    """Return the mean CPU seconds of a step early in a training, which is thrown away."""
    return statistics.mean(trained(model, schedule(dataset, TIMED[1]), images(dataset), 0)[1][TIMED[0] :])


def run(
    dataset: str, name: str, variant: dict[str, Any], seed: int, steps: int, attention_rate: float = 1.0
) -> dict[str, Any]:
    """Train, and return what is known of the result: bits/dim of each held-out image, seconds, certificate."""
    model, train = fitted(dataset, variant), images(dataset)
    config = schedule(dataset, steps).model_copy(update={"attention_rate": attention_rate})
    average, seconds = trained(model, config, train, seed)
    flow, certificate = certified_average(average)
    held_out = Batches(train, config.validation_images, seed).validation  # the same for every seed
    torch.manual_seed(0)
    found = measure(flow, held_out, FLOWS[dataset]["draws"], 256, torch.Generator().manual_seed(0))
    return {
        "variant": name,
        "seed": seed,
        "parameters": sum(p.numel() for p in flow.parameters()),
        "width": model.dense.growth if model.branch == "dense" else model.idim,
        "fc_width": model.fc_width,
        "steps": steps,
        "seconds": round(sum(seconds), 2),
        "certificate": certificate.worst,
        "bits_per_dim": [round(value, 5) for value in found.bits_per_dim.mean(0).tolist()],
    }


def runs_of(dataset: str, name: str, seeds: list[int], budget: float, work: Path) -> list[dict[str, Any]]:
    """Return the runs of all seeds of a variant; those that are in the work folder are not done again."""
    variant = VARIANTS[name]
    folder = work / dataset / f"{budget:g}s" / name.replace(", ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    steps: int | None = None
    rows = []
    for seed in seeds:
        path = folder / f"seed{seed}.json"
        if not path.exists():
            if steps is None:
                steps = round(budget / seconds_of_a_step(dataset, fitted(dataset, variant)))
            row = run(dataset, name, variant, seed, steps)
            if not rows and abs(row["seconds"] / budget - 1) > TOLERANCE["seconds"]:
                row = run(dataset, name, variant, seed, round(steps * budget / row["seconds"]))
            path.write_text(json.dumps(row))
            print(f"{dataset}, {name}, seed {seed}: {statistics.mean(row['bits_per_dim']):.4f}", flush=True)
        rows.append(json.loads(path.read_text()))
        steps = rows[0]["steps"]
    return rows


def bits(rows: list[dict[str, Any]]) -> Row:
    return Row(np.array([row["bits_per_dim"] for row in rows]))


HEAD = f"""Generated by `python benchmarks/layers.py`, which says how. Bits/dim of images held out of the training data,
lower is better; differences to the first row, {BASE}, are paired over images, their errors and intervals are over
images and seeds. The rates of the optimiser were chosen for that row. Widths are `idim` or `dense.growth`, and
`fc_width`.
"""
COLUMNS = ["variant", "parameters", "widths", "steps", "seconds", "bits/dim", "less the first", "95 % interval"]


def cells(runs: list[dict[str, Any]], row: Row, less: Difference | None) -> list[str]:
    against = ["-", "-"]
    if less:
        low, high = less.interval()
        against = [f"{less.mean:+.4f} ± {less.se:.4f}", f"{low:+.4f} to {high:+.4f}"]
    first, seconds = runs[0], statistics.mean(one["seconds"] for one in runs)
    numbers = [
        f"{first['parameters']:,}",
        f"{first['width']}, {first['fc_width']}",
        f"{first['steps']}",
        f"{seconds:.0f}",
    ]
    worst = max(one["certificate"] for one in runs)
    return [first["variant"], *numbers, f"{row.bits.mean():.4f}", *against, f"{worst:.4f}"]


def markdown(results: dict[str, Any]) -> str:
    text = [HEAD]
    for dataset, result in results.items():
        by_variant = {variant: [row for row in result["rows"] if row["variant"] == variant] for variant in VARIANTS}
        rows = {variant: bits(found) for variant, found in by_variant.items() if found}
        spread = training_spread(rows.values())
        lines = [
            cells(by_variant[variant], row, None if variant == BASE else difference(row, rows[BASE], spread))
            for variant, row in rows.items()
        ]
        seeds = ", ".join(map(str, result["seeds"]))
        text += [
            f"## {dataset}",
            "",
            f"{result['budget']:g} CPU seconds of training; seeds {seeds}; {result['images']} images, "
            f"{result['draws']} draws. Certificates are the worst of all blocks and seeds.",
            "",
            *table([*COLUMNS, "certificate"], lines),
            "",
            "*`{command}`, {date}, torch {torch}, {machine}; load before {load_before}.*".format(**result),
            "",
        ]
    return "\n".join(text)


def common_facts(command: str, options: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what is recorded of the runs of a data set, whatever is compared."""
    return {
        "command": f"{command} --seeds {' '.join(map(str, options.seeds))}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seeds": options.seeds,
        "images": len(rows[0]["bits_per_dim"]),
        "draws": FLOWS[options.dataset]["draws"],
        "rows": rows,
    }


def record(path: Path, page: Path, key: str, entry: dict[str, Any], markdown: Callable[[dict[str, Any]], str]) -> None:
    """Add an entry to a file of results, and write and print the page that is made of all of them."""
    results = json.loads(path.read_text()) if path.exists() else {}
    results[key] = entry
    path.write_text(json.dumps(results))
    page.write_text(markdown(results))
    print(markdown(results))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=list(FLOWS), default="digits")
    parser.add_argument("--seconds", type=float, default=120.0, help="CPU seconds of training of each run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variant", choices=list(VARIANTS), action="append", help="do only this one; no table")
    parser.add_argument("--work", type=Path, default=ROOT / ".acf/layers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    about = facts()
    rows = [
        row
        for name in options.variant or VARIANTS
        for row in runs_of(options.dataset, name, options.seeds, options.seconds, options.work)
    ]
    if options.variant:
        return
    arguments = f"--dataset {options.dataset} --seconds {options.seconds:g}"
    entry = {**about, "budget": options.seconds, **common_facts(f"{COMMAND} {arguments}", options, rows)}
    record(RESULT, TABLE, options.dataset, entry, markdown)


if __name__ == "__main__":
    main()
