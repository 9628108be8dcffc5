"""Ways of joining attention to a flow, at equal parameters and steps.

python benchmarks/joins.py --dataset digits [--case NAME] [--work FOLDER], after `acf prepare --dataset digits`

Each case is one training by `acf train` with the settings of params.yaml (digits) or those below (fashion-mnist: a flow
that trains in minutes on two cores), its width chosen for the number of parameters of the flow without attention;
attention stands at every third convolutional block (`every` of params.yaml).
All models see the same dequantisation noise, so that differences per image can be paired; their standard error is
over test images and says nothing about the seed of training. Finished cases are not trained again. Writes
benchmarks/results/joins.json and docs/tables/joins.md.
"""

import argparse
import copy
import json
import math
import os
import platform
import subprocess
import sys
from bisect import bisect_left
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml

import acf
from acf import data
from acf.evaluation.likelihood import measure
from acf.lipschitz.join import Join

ROOT = Path(__file__).resolve().parents[1]
RESULT, TABLE = ROOT / "benchmarks/results/joins.json", ROOT / "docs/tables/joins.md"

SMALL: dict[str, Any] = {
    "seeds": [0],
    "model": {"blocks": [6], "squeeze_first": True, "fc_blocks": 1, "fc_width": 32, "attention": {"heads": 2}},
    "training": {
        "steps": 250,
        "batch_size": 32,
        "learning_rate": 2.0e-2,
        "schedule": "cosine",
        "warmup_steps": 30,
        "ema_decay": 0.98,
        "validation_images": 64,
        "validate_every": 250,
    },
    "evaluation": {"images": 512},
    "sampling": {},
}
IMAGES = {"digits": None, "fashion-mnist": 512}


def attention(kind: str, join: str, **more: Any) -> dict[str, Any]:
    return {"attention": {"kind": kind, "join": join, **more}}


CASES: dict[str, tuple[dict[str, Any], int]] = {  # model settings, seed
    "none": ({}, 0),
    "none, seed 1": ({}, 1),
    "none, as many residual blocks as with blocks of attention": ({"blocks": "more"}, 0),
    "sinkhorn, convex": (attention("sinkhorn", "convex"), 0),
    "sinkhorn, concatenate": (attention("sinkhorn", "concatenate"), 0),
    "sinkhorn, split 1/2": (attention("sinkhorn", "split", share=0.5), 0),
    "sinkhorn, block of its own after every 3rd": (attention("sinkhorn", "block", every=3), 0),
    "sinkhorn, block of its own after every 3rd, seed 1": (attention("sinkhorn", "block", every=3), 1),
    "sinkhorn, convex in every 3rd": (attention("sinkhorn", "convex", every=3), 0),
}
ON = {  # 196 tokens leave time for few
    "digits": [name for name in CASES if name != "sinkhorn, convex in every 3rd"],
    "fashion-mnist": [
        "none",
        "none, as many residual blocks as with blocks of attention",
        "sinkhorn, convex in every 3rd",
        "sinkhorn, block of its own after every 3rd",
    ],
}
DRAWS = {"digits": 4, "fashion-mnist": 1}


def merged(base: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    result = copy.deepcopy(base)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def parameters(model: dict[str, Any]) -> int:
    return sum(p.numel() for p in acf.build(model).parameters())


def project(dataset: str, name: str, work: Path) -> tuple[Path, int]:
    """Write the case's params.yaml, its width chosen for the parameters of the flow without attention."""
    settings, seed = CASES[name]
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    experiment = params["experiments"]["digits"] if dataset == "digits" else copy.deepcopy(SMALL)
    idim = params["experiments"]["digits"]["model"]["idim"] if dataset == "digits" else 66
    manifest = data.read_manifest(dataset, ROOT / "data")
    base = merged(params["defaults"]["model"], experiment["model"]) | {
        "shape": manifest.shape,
        "levels": manifest.levels,
    }
    target = parameters(base | {"idim": idim, "attention": {"kind": "none"}})
    blocks = experiment["model"]["blocks"]
    if settings.get("blocks") == "more":  # one for each block of attention at every third
        settings = {"blocks": [n + n // 3 for n in blocks]}
    model = merged(experiment["model"], settings)
    widths = range(8, idim + 1, 2)

    def count(width: int) -> int:
        return parameters(merged(base, settings) | {"idim": width})

    above = min(bisect_left(widths, target, key=count), len(widths) - 1)
    model["idim"] = min(widths[max(above - 1, 0) : above + 1], key=lambda width: abs(count(width) - target))
    experiment = experiment | {"model": model, "dataset": dataset, "variants": {"case": {}}, "seeds": [seed]}
    folder = work / dataset / name.replace(", ", "-").replace(" ", "_").replace("/", "_")
    folder.mkdir(parents=True, exist_ok=True)
    params |= {"datasets": {dataset: {}}, "variants": {"case": {}}, "experiments": {dataset: experiment}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    if not (folder / "data").exists():
        (folder / "data").symlink_to(ROOT / "data")
    return folder, seed


def trained(dataset: str, name: str, work: Path) -> acf.Flow:
    folder, seed = project(dataset, name, work)
    command = [Path(sys.executable).parent / "acf", "train", "--experiment", dataset, "--variant", "case"]
    with (folder / "train.log").open("w") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([*command, "--seed", str(seed)], cwd=folder, env=environment, stdout=log, check=True)
    return acf.load(folder / f"models/{dataset}/case/seed{seed}").eval()


def line(name: str, flow: acf.Flow, images: torch.Tensor, draws: int) -> dict[str, Any]:
    torch.manual_seed(0)
    values = measure(flow, images, draws, 256, torch.Generator().manual_seed(0)).bits_per_dim.mean(0)
    return {
        "case": name,
        "parameters": sum(p.numel() for p in flow.parameters()),
        "idim": flow.config.idim,
        "bits_per_dim": values.tolist(),
        "certificate": acf.certify(flow).worst,
        "shares": [m.share() for m in flow.modules() if isinstance(m, Join)],
    }


def mean(values: torch.Tensor) -> str:
    return f"{float(values.mean()):.4f} ± {float(values.std()) / math.sqrt(len(values)):.4f}"


def markdown(results: dict[str, Any]) -> str:
    text = [
        "Generated by `python benchmarks/joins.py`, which says how. Attention at every third convolutional block.\n"
    ]
    for dataset, result in results.items():
        lines = {entry["case"]: torch.tensor(entry["bits_per_dim"], dtype=torch.float64) for entry in result["cases"]}
        text.append(f"## {dataset}\n\n{result['images']} test images, {result['draws']} draws; {result['machine']}.\n")
        if "note" in result:
            text.append(f"{result['note']}\n")
        text.append("| attention, joined | parameters | idim | bits/dim | less none, paired | certificate | shares |")
        text.append("|---|---:|---:|---:|---:|---:|---|")
        for entry in result["cases"]:
            values, none = lines[entry["case"]], lines["none, seed 1" if "seed 1" in entry["case"] else "none"]
            shares = entry["shares"]
            span = f"{min(shares):.2f} to {max(shares):.2f}" if shares else "-"
            gain = "-" if values is none else mean(values - none)
            text.append(
                f"| {entry['case']} | {entry['parameters']:,} | {entry['idim']} | {mean(values)} | {gain} "
                f"| {entry['certificate']:.4f} | {span} |"
            )
        text.append("")
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", choices=sorted(IMAGES), default="digits")
    parser.add_argument("--case", choices=list(CASES), action="append", help="train only this one; no table")
    parser.add_argument("--work", type=Path, default=ROOT / ".acf/joins")
    options = parser.parse_args()
    if options.case:
        for name in options.case:
            trained(options.dataset, name, options.work)
        return
    images = data.load(options.dataset, "test", ROOT / "data")[: IMAGES[options.dataset]]
    draws = DRAWS[options.dataset]
    cases = [line(name, trained(options.dataset, name, options.work), images, draws) for name in ON[options.dataset]]
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    results[options.dataset] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, torch {torch.__version__}, one thread",
        "images": len(images),
        "draws": draws,
        "cases": cases,
    }
    RESULT.write_text(json.dumps(results))
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text(markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
