"""How much can each certified attention make its output depend on the other tokens, at equal certificate Lip <= 1?

Take two independent inputs X, X' of one kind, and let Z be X' with four random tokens i taken from X: for these tokens
nothing has changed but the others. D_i = f(Z)_i - f(X)_i is the change of their outputs. Both numbers reported are
relative to sqrt(2) times the root mean square length of a token, which is what the replaced tokens change by:

- total effect: sqrt(mean |D_i|^2);
- token-specific effect: the same for D_i - mean_i D, the mean being over the tokens of one image: what depends on who
  asks. It is exactly zero for a mean over all tokens (and would be 1 / N if each token's context were replaced by
  itself). The four tokens estimate the mean square over all N without bias (n - 1 in place of n).

Weights and learnt parameters (bandwidths, radii, sharpness) of each attention of `acf.registry` are trained by Adam on
fresh data in every step to raise the logarithm of the token-specific effect, and measured on held-out data. Every layer
is 1-Lipschitz by construction; to compare at exactly 1, effects are divided by the proven bound of the trained layer.
"l2, Kim et al.": the trained L2 layer under sqrt(N) (4 M + 1), M = W_0((N - 1) / e), arXiv 2006.04710, Theorem 3.2.

Data, square maps of 32 channels with entries of mean square 1: "clusters", where each token has one of four keys, the
same in all images, a payload that the tokens of its cluster share within an image, and noise; "fields", Gaussian with
covariance exp(-d^2 / (2 l^2)), l a fifth of the side, and variances 1 / k of the channels k.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from scipy.special import lambertw
from torch import Tensor, nn

from acf.errors import TrainingError
from acf.lipschitz import l2_attention_constant
from acf.lipschitz.normalised import Normalised
from acf.registry import ATTENTIONS, resolve

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "python benchmarks/attention_strength.py"
CHANNELS, HEADS, ASKING, CLUSTERS = 32, 4, 4, 4
RATE = 0.01
# Tokens: seeds, steps, images of a step, held-out images.
SIZES = {16: (3, 1000, 16, 512), 49: (3, 600, 16, 512), 196: (1, 400, 4, 128)}
QUICK = {16: (2, 20, 4, 16), 49: (1, 5, 2, 4)}

Sampler = Callable[[int], Tensor]


def clusters(n: int) -> Sampler:
    """Return a source of (B, CHANNELS, side, side) with keys on four channels and payloads on the others."""
    side, payload = math.isqrt(n), CHANNELS - CLUSTERS

    def sample(images: int) -> Tensor:
        chosen = nn.functional.one_hot(torch.randint(CLUSTERS, (images, n)), CLUSTERS).float()
        contents = chosen @ torch.randn(images, CLUSTERS, payload)
        tokens = torch.cat([math.sqrt(CHANNELS / 2) * chosen, math.sqrt(CHANNELS / 2 / payload) * contents], -1)
        noisy = (tokens + 0.3 * torch.randn_like(tokens)) / math.sqrt(1.09)
        return noisy.mT.reshape(images, CHANNELS, side, side)

    return sample


def fields(n: int) -> Sampler:
    """Return a source of (B, CHANNELS, side, side) of smooth Gaussian fields."""
    side = math.isqrt(n)
    places = torch.cartesian_prod(torch.arange(side), torch.arange(side)).double() / side
    covariance = torch.exp(-torch.cdist(places, places).square() / (2 * 0.2**2))
    smooth = torch.linalg.cholesky(covariance + 1e-6 * torch.eye(n)).float()
    variances = 1 / torch.arange(1, CHANNELS + 1)
    scale = (variances / variances.mean()).sqrt()[:, None]

    def sample(images: int) -> Tensor:
        return (scale * (torch.randn(images, CHANNELS, n) @ smooth.T)).reshape(images, CHANNELS, side, side)

    return sample


DATA = {"clusters": clusters, "fields": fields}


def effects(layer: nn.Module, x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squares of the total and the token-specific effect, relative to twice the mean square length of a token."""
    n = x[0, 0].numel()
    asking = torch.randperm(n)[:ASKING]
    swapped = other.flatten(2).index_copy(2, asking, x.flatten(2)[:, :, asking]).view_as(x)
    before, after = layer(torch.cat([x, swapped])).flatten(2)[:, :, asking].chunk(2)
    change = after - before
    unit = 2 * x.square().sum(1).mean()
    specific = change.var(-1).sum(1).mean() * (n - 1) / n
    return change.square().sum(1).mean() / unit, specific / unit


def strength(attention: str, sample: Sampler, n: int, steps: int, batch: int, held_out: int) -> dict[str, float]:
    """Train one layer, return its proven `bound` and the `total` and `specific` effect at certificate 1.

    Raises:
        TrainingError: the trained layer has no finite bound.
    """
    layer = resolve(ATTENTIONS, attention, "attention")(CHANNELS, HEADS, coefficient=1.0)
    maps = [module for module in layer.modules() if isinstance(module, Normalised)]
    optimiser = torch.optim.Adam(layer.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        loss = -effects(layer, sample(batch), sample(batch))[1].log()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        for normalised in maps:
            normalised.renormalise(5)
    for normalised in maps:
        normalised.converge_norm()
    bound = layer.lipschitz_bound(n)
    if not math.isfinite(bound):
        raise TrainingError(f"attention {attention!r} has no finite bound after training on {n} tokens; lower RATE")
    with torch.no_grad():
        measured = [effects(layer, sample(batch), sample(batch)) for _ in range(held_out // batch)]
    total, specific = (math.sqrt(statistics.fmean(map(float, part))) / bound for part in zip(*measured, strict=True))
    return {"bound": bound, "total": total, "specific": specific}


def kim_over_ours(n: int) -> float:
    """Return the constant of Kim et al. divided by the library's."""
    return math.sqrt(n) * (4 * float(lambertw((n - 1) / math.e).real) + 1) / l2_attention_constant(n)


def measure(sizes: dict[int, tuple[int, int, int, int]]) -> list[dict[str, Any]]:
    """Run all trainings; one row per data, size and attention with the values of each seed."""
    jobs = list(product(DATA, sizes, ATTENTIONS))
    rows: list[dict[str, Any]] = []
    for data, n, attention in track(jobs, "attention strength", disable=not sys.stdout.isatty()):
        seeds, *budget = sizes[n]
        runs = []
        for seed in range(seeds):
            torch.manual_seed(seed)
            runs.append(strength(attention, DATA[data](n), n, *budget))
        row = {"data": data, "tokens": n, "attention": attention}
        rows.append(row | {key: [run[key] for run in runs] for key in runs[0]})
        if attention == "l2":
            under_kim = {key: [value / kim_over_ours(n) for value in rows[-1][key]] for key in ("total", "specific")}
            rows.append(rows[-1] | {"attention": "l2, Kim et al."} | under_kim)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: one table per kind of data; mean and standard error over seeds."""

    def cell(values: list[float]) -> str:
        if len(values) == 1:
            return f"{values[0]:.4f}"
        return f"{statistics.fmean(values):.4f} ± {statistics.stdev(values) / math.sqrt(len(values)):.4f}"

    lines = [
        f"Generated by `{COMMAND}`, which defines the quantities.",
        "",
        "Change of a token's output when the other tokens are replaced, at proven Lipschitz bound 1 and relative to",
        "the change of the replaced tokens; layers trained to raise the token-specific part. Mean ± standard error",
        "over seeds; one seed where no error is given.",
    ]
    for data in DATA:
        lines += ["", f"## {data}", "", "| N | attention | token-specific | total | seeds |", "|---|---|---|---|---|"]
        for row in (row for row in rows if row["data"] == data):
            values = f"{cell(row['specific'])} | {cell(row['total'])} | {len(row['total'])}"
            lines.append(f"| {row['tokens']} | {row['attention']} | {values} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="try the code: tiny settings, print the table only")
    if parser.parse_args().quick:
        print(table(measure(QUICK)))
        return
    started = time.perf_counter()
    rows = measure(SIZES)
    names = ("seeds", "steps", "batch", "held_out_images")
    document = {
        "command": COMMAND,
        "settings": {"channels": CHANNELS, "heads": HEADS, "asking": ASKING, "learning_rate": RATE}
        | {"sizes": {n: dict(zip(names, budget, strict=True)) for n, budget in SIZES.items()}},
        "torch": torch.__version__,
        "seconds": round(time.perf_counter() - started),
        "rows": rows,
    }
    for place, text in (
        (ROOT / "benchmarks/results/attention_strength.json", json.dumps(document, indent=1) + "\n"),
        (ROOT / "docs/tables/attention_strength.md", table(rows)),
    ):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


if __name__ == "__main__":
    main()
