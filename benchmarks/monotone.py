"""What monotone blocks cost beside residual ones, and what an early stop of their iterations changes.

python benchmarks/monotone.py, after `acf prepare --dataset digits`

Trains `resflow` and `acf-sinkhorn` of params.yaml's experiment digits with both kinds of block. Then, with the weights
at the end:

- a training step with each, in turns, at `training.log_det.solve_residual`;
- for several values of `solve_residual`, with the same probes: log p and its gradient against those of the same
  computation with a residual of 1e-7 in float64, the evaluations of g of the forward map, and the products of the
  backward pass;
- evaluations of g by the number of secants of the forward map's acceleration;
- evaluation of log p and sampling with each kind.

Writes benchmarks/results/monotone.json and docs/tables/monotone.md.
"""

import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import acf
from acf import data
from acf.flows import implicit, monotone, monotone_gradient
from acf.flows.dequantise import dequantise
from acf.flows.fixed_point import Iterate, StoppingRule, iterate_each
from acf.flows.iteration_together import LEAST_RESIDUAL, MAX_EVALUATIONS, iterate_together
from acf.flows.monotone import MonotoneBlock
from acf.runs.device import describe_device
from acf.settings.config import ModelConfig
from acf.settings.params import Params
from acf.training.batches import Batches
from acf.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[1]
RESULT, TABLE = ROOT / "benchmarks/results/monotone.json", ROOT / "docs/tables/monotone.md"
VARIANTS, SEED, IMAGES, ROUNDS = ("resflow", "acf-sinkhorn"), 0, 64, 7
RESIDUALS, SECANTS = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4), (0, 1, 2, 3, 8)


def trained(variant: str, block: str) -> acf.Flow:
    """The flow with the weights of its last training step."""
    settings = Params(ROOT / "params.yaml").resolve("digits", variant)
    manifest = data.read_manifest("digits", ROOT / "data")
    parameters = settings.model.model_dump() | {"block": block}
    model = ModelConfig(
        **parameters, shape=manifest.shape, levels=manifest.levels, training_log_det=settings.training.log_det
    )
    batches = Batches(data.load("digits", "train", ROOT / "data"), settings.training.validation_images, SEED)
    with tempfile.TemporaryDirectory() as folder:
        place = torch.device("cpu")
        trainer = Trainer(model, settings.training, batches, SEED, place, Path(folder), f"{variant}, {block}")
        trainer.run()
    return trainer.flow


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    stored = data.load("digits", "test", ROOT / "data")[:IMAGES]
    return dequantise(stored, 17, torch.Generator().manual_seed(SEED), dtype)


def set_residual(flow: acf.Flow, residual: float) -> None:
    for block in flow.contractive_blocks().values():
        block.training_log_det = block.training_log_det.model_copy(update={"solve_residual": residual})


def step(flow: acf.Flow, x: Tensor) -> tuple[Tensor, Tensor]:
    """log p (B,) and the gradient of its mean in all parameters, from the same random numbers at every call."""
    torch.manual_seed(SEED)
    flow.train().zero_grad()
    log_prob = flow.log_prob(x)
    (-log_prob.mean()).backward()
    gradients = [p.grad.flatten() for p in flow.parameters() if p.grad is not None]
    return log_prob.detach(), torch.cat(gradients)


def counted(function: Callable[[], Any]) -> tuple[Any, float, float]:
    """What a function returns, with the evaluations of g and the products with J^T per sample and monotone block."""
    counts: dict[str, list[float]] = {"forward": [], "backward": []}

    def counting(where: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            found = iterate_together(*args, **kwargs)
            left_at_once = found is None and args[2].relative_residual < LEAST_RESIDUAL
            counts[where].append(0 if left_at_once else MAX_EVALUATIONS if found is None else found.evaluations)
            return found

        return call

    def careful(where: str) -> Callable[..., Iterate]:
        def call(*args: Any, **kwargs: Any) -> Iterate:
            found = iterate_each(*args, **kwargs)
            counts[where][-1] += float(found.evaluations.double().mean())
            return found

        return call

    with ExitStack() as patched:
        for module, where in ((monotone_gradient, "forward"), (implicit, "backward")):
            patched.enter_context(patch.object(module, "iterate_together", counting(where)))
        for module, where in ((monotone, "forward"), (implicit, "backward")):
            patched.enter_context(patch.object(module, "iterate_each", careful(where)))
        result = function()
    means = [statistics.mean(values) if values else 0.0 for values in counts.values()]
    return result, means[0], means[1]


def bias(flow: acf.Flow) -> list[dict[str, float]]:
    """What an early stop changes, for each residual: float32 against float64 with next to none."""
    exact = acf.build(flow.config).double()
    exact.load_state_dict(flow.state_dict())
    set_residual(exact, 1e-7)
    log_prob, gradient = step(exact, images(torch.float64))
    torch.manual_seed(SEED + 1)
    exact.zero_grad()
    (-exact.log_prob(images(torch.float64)).mean()).backward()
    other = torch.cat([p.grad.flatten() for p in exact.parameters() if p.grad is not None])
    noise = float((other - gradient).norm() / gradient.norm())
    per_bit = math.prod(flow.shape) * math.log(2)
    rows = []
    for residual in RESIDUALS:
        set_residual(flow, residual)
        (found, own), forward, backward = counted(lambda: step(flow, images()))
        difference = (log_prob - found.double()) / per_bit
        rows.append(
            {
                "residual": residual,
                "bits_per_dim": float(difference.mean()),
                "bits_per_dim_se": float(difference.std()) / math.sqrt(IMAGES),
                "gradient": float((own.double() - gradient).norm() / gradient.norm()),
                "gradient_noise": noise,
                "evaluations": forward,
                "products": backward,
            }
        )
    return rows


def secants(flow: acf.Flow) -> list[dict[str, float]]:
    """Evaluations of g per sample and block, by the number of secants."""
    inputs: dict[MonotoneBlock, Tensor] = {}
    blocks = [b for b in flow.eval().contractive_blocks().values() if isinstance(b, MonotoneBlock)]
    hooks = [b.register_forward_pre_hook(lambda block, args: inputs.__setitem__(block, args[0])) for b in blocks]
    with torch.no_grad():
        flow.log_prob(images())
    for hook in hooks:
        hook.remove()
    rows = []
    for memory in SECANTS:
        row = {"secants": float(memory)}
        for residual in (1e-3, 1e-6):
            used = [
                iterate_each(lambda w, _, b=b: b.branch(w), 2**0.5 * inputs[b], StoppingRule(residual), memory=memory)
                for b in blocks
            ]
            row[f"{residual:g}"] = statistics.mean(float(u.evaluations.double().mean()) for u in used)
        rows.append(row)
    return rows


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def costs(flows: dict[str, acf.Flow], residual: float) -> dict[str, dict[str, float]]:
    """Median seconds of a step, of log p and of sampling, in turns."""
    x = images()
    for flow in flows.values():
        set_residual(flow, residual)
        step(flow, x)
    times: dict[str, dict[str, list[float]]] = {block: {"step": [], "log_prob": [], "sample": []} for block in flows}
    for _ in range(ROUNDS):
        for block, flow in flows.items():
            times[block]["step"].append(seconds(lambda f=flow: step(f, x)))
            acf.tighten(flow.eval())
            with torch.no_grad():
                times[block]["log_prob"].append(seconds(lambda f=flow: f.log_prob(x)))
                times[block]["sample"].append(seconds(lambda f=flow: f.sample(IMAGES)))
    return {
        block: {name: statistics.median(values) for name, values in of_block.items()}
        for block, of_block in times.items()
    }


def compare(variant: str) -> dict[str, Any]:
    flows = {block: trained(variant, block) for block in ("residual", "monotone")}
    residual = flows["monotone"].config.training_log_det.solve_residual
    return {
        "solve_residual": residual,
        "costs": costs(flows, residual),
        "bias": bias(flows["monotone"]),
        "secants": secants(flows["monotone"]),
    }


def markdown(result: dict[str, Any]) -> str:
    text = [
        "Generated by `python benchmarks/monotone.py`, which says how.\n",
        f"digits, {IMAGES} test images, seed {SEED}; last weights; {result['machine']}. Steps are those of one "
        f"batch of {IMAGES}; medians of {ROUNDS} in turns.\n",
    ]
    for variant, found in result["variants"].items():
        text += [
            f"\n## {variant}\n",
            f"| block | training step, ms (residual {found['solve_residual']:g}) | log p, ms | sampling, ms |",
            "|---|---:|---:|---:|",
            *(
                f"| {block} | {1e3 * c['step']:.0f} | {1e3 * c['log_prob']:.0f} | {1e3 * c['sample']:.0f} |"
                for block, c in found["costs"].items()
            ),
            "",
            "| `solve_residual` | bits/dim less exact, same probes | error of the gradient | noise of the gradient | "
            "evaluations forward | products backward |",
            "|---:|---:|---:|---:|---:|---:|",
            *(
                f"| {r['residual']:g} | {r['bits_per_dim']:+.1e} ± {r['bits_per_dim_se']:.0e} | {r['gradient']:.1e} | "
                f"{r['gradient_noise']:.2f} | {r['evaluations']:.1f} | {r['products']:.1f} |"
                for r in found["bias"]
            ),
            "",
            "| secants | evaluations to 1e-3 | to 1e-6 |",
            "|---:|---:|---:|",
            *(f"| {r['secants']:.0f} | {r['0.001']:.2f} | {r['1e-06']:.2f} |" for r in found["secants"]),
        ]
    text.append(
        "\nErrors and noise of the gradient are l2 norms relative to the gradient's; the noise is the difference of "
        "two draws of the estimate on the same images."
    )
    return "\n".join(text) + "\n"


def main() -> None:
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{describe_device(torch.device('cpu'))}, torch {torch.__version__}",
        "variants": {variant: compare(variant) for variant in VARIANTS},
    }
    RESULT.write_text(json.dumps(result, indent=1))
    TABLE.write_text(markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
