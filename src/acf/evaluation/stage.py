"""The stage `evaluate`."""

import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from acf.config import EvaluationConfig
from acf.data import load as load_images
from acf.data import read_manifest
from acf.data.prepared.store import Images
from acf.engine.device import describe_device, select_device
from acf.engine.recipe import recipe
from acf.engine.store import open_run, write_atomically
from acf.errors import TrainingError
from acf.evaluation.likelihood import dequantised, measure
from acf.evaluation.reconstruction import largest_reconstruction_error
from acf.flows.certificate import certify
from acf.flows.flow import Flow
from acf.flows.storage import load, read_record, weights_hash
from acf.params import Params, Run


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


def evaluate_flow(flow: Flow, images: Images | Tensor, config: EvaluationConfig) -> dict[str, Any]:
    """Certify `flow`, then measure likelihood and reconstruction on uint8 `images` (N, C, H, W).

    Raises:
        NotContractiveError: a block is not proven contractive; names it.
        TrainingError: the likelihood is not finite.
    """
    certificate = certify(flow)
    certificate.require()
    flow.eval().use_evaluation_estimator(config.log_det)
    # Two streams: torch's global one draws the estimator's noise, the other the dequantisation's.
    torch.manual_seed(config.seed + 2**31)
    noise = torch.Generator().manual_seed(config.seed)
    started = time.perf_counter()
    likelihood = measure(flow, images, config.draws, config.batch_size, noise)
    seconds = time.perf_counter() - started
    if not torch.isfinite(likelihood.bits_per_dim).all():
        raise TrainingError("bits/dim is not finite on some test images; the model is broken, train it again")
    noise.manual_seed(config.seed)
    batches = dequantised(images, flow.config.levels, noise, config.batch_size)
    return likelihood.summary() | {
        "parameters": sum(p.numel() for p in flow.parameters()),
        "certificate": certificate.as_dict(),
        "reconstruction_error": largest_reconstruction_error(flow, batches),
        "reconstruction_images": len(images),
        "test_images": len(images),
        "draws": config.draws,
        "estimator": config.log_det.model_dump(mode="json"),
        "evaluate_seconds": round(seconds, 3),
        "images_per_second": round(config.draws * len(images) / seconds, 2),
    }
