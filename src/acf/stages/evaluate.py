"""The stage `evaluate`."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from acf.data import load as load_images
from acf.data import read_manifest
from acf.evaluation.metrics import evaluate_flow
from acf.flows.storage import load, read_record, weights_hash
from acf.runs.device import describe_device, select_device
from acf.runs.files import write_atomically
from acf.runs.recipe import recipe
from acf.runs.store import open_run
from acf.settings.params import Params, Run


def evaluate(dataset: str, variant: str, seed: int, device: str = "auto", root: Path = Path(".")) -> None:
    """Measure a trained model and write results/<dataset>/<variant>/seed<seed>/metrics.json.

    Raises:
        NotContractiveError: a block is not proven contractive; names it, and nothing is written.
        AcfError: bad configuration, missing data or model.
    """
    config = Params(root / "params.yaml").resolve(dataset, variant).evaluation
    manifest = read_manifest(dataset, root / "data")
    run_folder = Run(dataset, variant, seed).folder
    folder = root / "models" / run_folder
    record = read_record(folder)
    output = root / "results" / run_folder / "metrics.json"
    inputs = {"test": manifest.sha256["test"], "weights": weights_hash(folder)}
    identity = {"dataset": dataset, "variant": variant, "seed": seed, "model": record["model"]}
    key = recipe("evaluate", identity | {"evaluation": config.model_dump(mode="json")}, inputs)
    with open_run(key, root).locked() as store:
        if store.restore([output]):
            return
        place = select_device(device)
        flow = load(folder, place)
        images = load_images(dataset, "test", root / "data", flow.config.levels).first(config.images)
        print(f"evaluate {dataset}/{variant}/seed{seed}: {len(images)} images, {config.draws} draws", flush=True)
        metrics: dict[str, Any] = {"dataset": dataset, "variant": variant, "seed": seed}
        metrics |= evaluate_flow(flow, images, config) | {
            "train_seconds": record.get("train_seconds"),
            "train_steps": record.get("train_steps"),
            "train_device": record.get("device"),
            "train_recipe": record.get("recipe"),
            "device": describe_device(place),
            "recipe": key,
            "versions": {"acf": version("acf"), "torch": torch.__version__},
        }
        write_atomically(output, (json.dumps(metrics, indent=2, allow_nan=False) + "\n").encode())
        store.keep([output])
        print(
            f"wrote {output}: {metrics['bits_per_dim']:.4f} ± {metrics['bits_per_dim_se']:.4f} bits/dim, "
            f"worst Lipschitz bound {metrics['certificate']['worst']:.4f}, "
            f"reconstruction error {metrics['reconstruction_error']:.1e}",
            flush=True,
        )
