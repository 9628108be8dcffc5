"""Norms by power iteration, as training uses them, against Gram iteration, which would bound them at every step.

python benchmarks/normalisers.py [steps [seeds]], after `acf prepare --dataset digits`; one thread.

Gram iteration (arXiv 2305.16173) squares G = T T^T repeatedly, rescaled: |T|^2 <= |G^(2^k)|_F^(1 / 2^k), an upper bound
that can be differentiated and that is at most a factor rank^(1 / 2^(k + 2)) above the norm. Convolutions are bounded by
their symbols on a torus (Proposition 7), on maps of few values by their matrices. All layers of a shape are stacked.

- Cost: CPU seconds of what a training step spends on norms, with gradients, the two taking turns: for power iteration
  effective tensors, their gradients and `renormalise`; for Gram iteration effective tensors and their gradients.
- Tightness: how far the norms in use are from the exact ones in the flow that was trained with them.
- Quality: bits/dim on the validation images of digits after equal steps from equal seeds, both flows tightened; the
  standard error is that of the differences, paired by image and averaged over the seeds.

Writes results/normalisers.json beside this file and docs/tables/normalisers.md.
"""

import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor

import acf
from acf import data
from acf.evaluation.likelihood import measure
from acf.lipschitz.bounds.norms import ROUNDING
from acf.lipschitz.effective import effective_tensors
from acf.lipschitz.layer import flatten
from acf.lipschitz.normalised import Normalised
from acf.lipschitz.normalised_conv import NormalisedConv2d
from acf.runs.device import describe_device
from acf.settings.config import ModelConfig
from acf.settings.params import Params
from acf.training.batches import Batches
from acf.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[1]
RESULT, TABLE = ROOT / "benchmarks/results/normalisers.json", ROOT / "docs/tables/normalisers.md"
SQUARINGS, TURNS, DRAWS = 6, 3, 8
# Up to this many values on the smaller side a convolution is bounded by its matrix.
DENSE_VALUES = 256
DIGITS = {"shape": (1, 8, 8), "blocks": [12], "idim": 74, "squeeze_first": True, "fc_blocks": 2, "fc_width": 64}
SHAPES: dict[str, dict[str, Any]] = {
    "digits, idim 74": DIGITS,
    "1x28x28, 16-16-16, idim 128": {"shape": (1, 28, 28), "blocks": [16, 16, 16], "idim": 128},
    "1x28x28, 4-4-4, idim 512": {"shape": (1, 28, 28), "blocks": [4, 4, 4], "idim": 512},
}


def gram_bounds(group: Sequence[Normalised], weights: Tensor) -> Tensor:
    """Upper bounds (L,) of the norms of the maps with weights (L, ...), differentiable."""
    layer = group[0]
    if not isinstance(layer, NormalisedConv2d) or weights.shape[-1] == 1:
        return ROUNDING * _bound(weights.flatten(2) if weights.dim() > 3 else weights)
    height, width = layer.size
    channels = min(weights.shape[1:3])
    if channels * height * width <= DENSE_VALUES:
        return ROUNDING * _bound(_matrices(weights, height, width))
    radius = weights.shape[-1] // 2
    symbols = torch.fft.rfft2(weights, s=(height + radius, width + radius)).permute(0, 3, 4, 1, 2)
    return ROUNDING * _bound(symbols).flatten(1).amax(1)


def _bound(maps: Tensor) -> Tensor:
    """Bounds (...) of the spectral norms of matrices (..., n, m)."""
    maps = maps if maps.shape[-2] <= maps.shape[-1] else maps.mH
    gram = (maps @ maps.mH).flatten(0, -3)
    exponent, logarithm = 0.5, torch.zeros(len(gram), dtype=gram.real.dtype)
    for square in range(SQUARINGS + 1):
        size = torch.linalg.vector_norm(gram, dim=(1, 2)).clamp_min(1e-30)
        logarithm = logarithm + exponent * size.log()
        if square < SQUARINGS:
            gram = gram / size[:, None, None]
            gram, exponent = torch.bmm(gram, gram), exponent / 2
    return logarithm.exp().view(maps.shape[:-2])


def _matrices(weights: Tensor, height: int, width: int) -> Tensor:
    """Matrices of zero-padded convolutions, rows belonging to the side with fewer channels."""
    if weights.shape[2] > weights.shape[1]:
        weights = weights.transpose(1, 2).flip(3, 4)
    inputs, kernel = weights.shape[2], weights.shape[-1]
    units = torch.eye(inputs * height * width).view(-1, inputs, height, width)
    patches = F.unfold(units, kernel, padding=kernel // 2).transpose(0, 1)
    return (weights.flatten(2) @ patches.flatten(1)).unflatten(2, patches.shape[1:]).transpose(1, 2).flatten(2)


@contextmanager
def gram_iteration() -> Iterator[None]:
    """Have all norms be those bounds."""
    with patch("acf.lipschitz.effective.stacked_estimates", gram_bounds):
        yield


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def cost(settings: dict[str, Any]) -> dict[str, float]:
    torch.manual_seed(0)
    flow = acf.build(settings)
    branches = [block.branch for block in flow.contractive_blocks().values()]
    parameters = [parameter for branch in branches for parameter in branch.parameters()]
    for layer in (m for m in flow.modules() if isinstance(m, Normalised)):
        layer.weight.data.mul_(3)

    def tensors_with_gradients() -> None:
        tensors = [t for t in flatten(tuple(effective_tensors(branches))) if not t.is_leaf]
        torch.autograd.grad(tensors, parameters, [torch.ones_like(t) for t in tensors], allow_unused=True)

    def power() -> None:
        tensors_with_gradients()
        flow.renormalise()

    def gram() -> None:
        with gram_iteration():
            tensors_with_gradients()

    seconds: dict[str, list[float]] = {"power": [], "gram": []}
    for _ in range(TURNS + 1):
        seconds["power"].append(cpu_seconds(power))
        seconds["gram"].append(cpu_seconds(gram))
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def trained(steps: int, seed: int, gram: bool) -> tuple[acf.Flow, Tensor]:
    """The flow with the norms of its last step, and the validation images."""
    settings = Params(ROOT / "params.yaml").resolve("digits", "resflow")
    manifest = data.read_manifest("digits", ROOT / "data")
    model = ModelConfig(**settings.model.model_dump(), shape=manifest.shape, levels=manifest.levels)
    batches = Batches(data.load("digits", "train", ROOT / "data"), settings.training.validation_images, seed)
    training = settings.training.model_copy(update={"steps": steps, "validate_every": steps})
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(model, training, batches, seed, torch.device("cpu"), Path(folder), "resflow")
        if gram:
            with gram_iteration():
                trainer.run()
        else:
            trainer.run()
    return trainer.flow.eval(), batches.validation


def over_exact(flow: acf.Flow, gram: bool) -> list[float]:
    """Norms in use over exact ones, of all linear maps."""
    ratios = []
    for layer in (m for m in flow.modules() if isinstance(m, Normalised)):
        used = gram_bounds([layer], layer.weight[None])[0] if gram else layer.estimated_norm()
        ratios.append(float(used.detach()) / (layer.stored_norm_bound() / ROUNDING))
    return ratios


def bits(flow: acf.Flow, images: Tensor, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return measure(flow, images, DRAWS, 512, torch.Generator().manual_seed(seed)).bits_per_dim.mean(0)


def quality(steps: int, seeds: int) -> dict[str, Any]:
    differences, values, ratios = [], {"power": [], "gram": []}, {"power": [], "gram": []}
    for seed in range(seeds):
        of_seed = {}
        for name in ("power", "gram"):
            flow, images = trained(steps, seed, name == "gram")
            ratios[name] += over_exact(flow, name == "gram")
            acf.tighten(flow)
            of_seed[name] = bits(flow, images, seed)
            values[name].append(float(of_seed[name].mean()))
        differences.append(of_seed["gram"] - of_seed["power"])
    means = torch.stack([d.mean() for d in differences])
    errors = torch.stack([d.std() / math.sqrt(len(d)) for d in differences])
    return {
        "steps": steps,
        "bits_per_dim": values,
        "difference": float(means.mean()),
        "se_images": float(errors.square().sum().sqrt()) / seeds,
        "se_seeds": float(means.std()) / math.sqrt(seeds) if seeds > 1 else None,
        "over_exact": {name: [min(r), statistics.median(r), max(r)] for name, r in ratios.items()},
    }


def table(result: dict[str, Any]) -> str:
    q = result["quality"]
    lines = [
        "Generated by `python benchmarks/normalisers.py`, which says how.",
        "",
        f"{result['machine']}, torch {result['torch']}, one thread; {SQUARINGS} squarings.",
        "",
        "| maps of | power iteration, ms | Gram iteration, ms | ratio |",
        "|---|---:|---:|---:|",
    ]
    for name, c in result["cost"].items():
        ratio = c["gram"] / c["power"]
        lines.append(f"| {name} | {1e3 * c['power']:.0f} | {1e3 * c['gram']:.0f} | {ratio:.1f} |")
    lines += ["", "| norms by | norm in use / exact: least, median, largest | bits/dim by seed |", "|---|---:|---:|"]
    for name in ("power", "gram"):
        ratios = ", ".join(f"{r:.4f}" for r in q["over_exact"][name])
        lines.append(f"| {name} iteration | {ratios} | {', '.join(f'{b:.4f}' for b in q['bits_per_dim'][name])} |")
    spread = "" if q["se_seeds"] is None else f", over seeds {q['se_seeds']:.4f}"
    lines += [
        "",
        f"Digits, {q['steps']} steps: Gram less power iteration {q['difference']:+.4f} bits/dim, standard error over "
        f"images {q['se_images']:.4f}{spread}.",
        "",
    ]
    return "\n".join(lines)


def main(steps: int = 100, seeds: int = 2) -> None:
    torch.set_num_threads(1)
    result = {
        "command": "python benchmarks/normalisers.py",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "machine": describe_device(torch.device("cpu")),
        "cost": {name: cost(settings) for name, settings in SHAPES.items()},
        "quality": quality(steps, seeds),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    TABLE.write_text(table(result), encoding="utf-8")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
