"""The stage `sample`: grids of samples and of reconstructions."""

import hashlib
import math
from pathlib import Path

import torch
from torch import Tensor

from acf.data import load as load_images
from acf.evaluation.grids import grey, tile
from acf.evaluation.likelihood import dequantise
from acf.flows.storage import load, read_record, weights_hash
from acf.runs.device import select_device
from acf.runs.recipe import recipe
from acf.runs.store import open_run
from acf.settings.params import Params, Run


def draw_pictures(dataset: str, variant: str, seed: int, device: str = "auto", root: Path = Path(".")) -> None:
    """Write samples.png and reconstructions.png to samples/<dataset>/<variant>/seed<seed>.

    All variants and seeds start from the same latent noise. The reconstructions are test images above f^-1(f(x)).

    Raises:
        NotContractiveError: a block is not proven contractive, so the flow is not inverted.
        AcfError: bad configuration, missing data or model.
    """
    config = Params(root / "params.yaml").resolve(dataset, variant).sampling
    run_folder = Run(dataset, variant, seed).folder
    folder = root / "models" / run_folder
    record = read_record(folder)
    outputs = [root / "samples" / run_folder / name for name in ("samples.png", "reconstructions.png")]
    levels = record["model"]["levels"]
    images = load_images(dataset, "test", root / "data", levels)[: config.reconstructions]
    inputs = {
        "weights": weights_hash(folder),
        "images": hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest(),
    }
    key = recipe("sample", {"sampling": config.model_dump(mode="json"), "model": record["model"]}, inputs)
    with open_run(key, root).locked() as store:
        if store.restore(outputs):
            return
        flow = load(folder, select_device(device))
        place = next(flow.parameters()).device
        noise = torch.Generator().manual_seed(config.seed)
        samples = flow.sample(config.samples, config.temperature, noise)
        x = dequantise(images, levels, noise).to(place)
        back = flow.inverse(flow.transform(x)).clamp(0, 1 - 1e-6)
        for path, grid in zip(
            outputs,
            (
                tile(grey(samples, levels), math.ceil(math.sqrt(len(samples)))),
                tile(_pairs(x, back, levels), len(x)),
            ),
            strict=True,
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            grid.save(path)
        store.keep(outputs)
        print(f"wrote {outputs[0].parent}", flush=True)


def _pairs(x: Tensor, back: Tensor, levels: int) -> Tensor:
    return torch.cat([grey(x, levels), grey(back, levels)])
