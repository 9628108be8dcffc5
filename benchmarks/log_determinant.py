"""Bias, spread and cost of the estimators of the log-determinant, against exact values.

python benchmarks/log_determinant.py, after `acf train --experiment digits ...` for the second table; writes
results/log_determinant.json beside this file and docs/tables/log_determinant.md.

The estimators see nothing of a block but its Jacobian J at a point. So J is computed densely once, the products
v^T J^k v of many probes follow from it (checked against the estimator proper), and all laws share them.
"""

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from log_determinant_table import markdown
from rich.progress import track
from torch import Tensor

import acf
from acf import data
from acf.flows.dequantise import dequantise
from acf.flows.logdet import RouletteEstimator, jacobian, value_and_neumann
from acf.flows.storage import load, weights_hash
from acf.lipschitz.normalised import Normalised
from acf.runs.device import describe_device

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "python benchmarks/log_determinant.py"
SEED, STRONG_DRAWS, FLOW_DRAWS, IMAGES, COUNTED = 0, 100_000, 2_500, 4, 40
LAWS = [("poisson", 1.0), ("poisson", 2.0), ("poisson", 4.0), *(("geometric", p) for p in (0.1, 0.3, 0.5, 0.7))]
EXACT, CUTS, PROBES = (0, 2, 4, 8, 20), (5, 10, 20), ("rademacher", "gaussian")
RESULT, TABLE = ROOT / "benchmarks/results/log_determinant.json", ROOT / "docs/tables/log_determinant.md"

Key = tuple[int, str | None, float | None]  # exact terms, law, parameter; a cut series has no law
KEYS: list[Key] = [*((n, law, p) for n in EXACT for law, p in LAWS), *((n, None, None) for n in CUTS)]


def weights_of(key: Key, draws: int) -> Tensor:
    """Weights of the terms, (terms, draws) or (terms, 1), by the package's own law."""
    terms, law, parameter = key
    if law is None:
        return torch.ones(terms, 1, dtype=torch.float64)
    estimator = RouletteEstimator(terms, law, parameter, "rademacher")  # type: ignore[arg-type]
    return estimator.weighted_probe(torch.zeros(draws, 1, dtype=torch.float64), per_sample=True).weights


def products(j: Tensor, v: Tensor, terms: int) -> Tensor:
    """v^T J^k v, k = 1..terms, of probes v (draws, D): (terms, draws)."""
    r, rows = v, []
    for _ in range(terms):
        r = r @ j
        rows.append((r * v).sum(1))
    return torch.stack(rows)


def signed(count: int) -> Tensor:
    """(-1)^(k+1), k = 1..count, as a column."""
    return (1.0 - 2.0 * (torch.arange(count, dtype=torch.float64) % 2)).unsqueeze(1)


def terms_of(t: Tensor) -> Tensor:
    """Terms (-1)^(k+1) / k v^T J^k v of the series from the products."""
    return signed(len(t)) / torch.arange(1, len(t) + 1).unsqueeze(1) * t


def estimates(j: Tensor, probe: str, draws: int) -> Iterator[Tensor]:
    """Per estimator of KEYS (3, draws): value, gradient for the logarithm of a factor of g, and number of products.

    That gradient is tr((I + J)^-1 J), whose estimate w^T J v = sum_k (-1)^k c_k v^T J^(k+1) v needs no more than the
    products of the value and one more.
    """
    size = (draws, len(j))
    v = torch.randn(size, dtype=j.dtype) if probe == "gaussian" else torch.randint(2, size).to(j.dtype) * 2 - 1
    weights = [weights_of(key, draws) for key in KEYS]
    t = products(j, v, 1 + max(len(w) for w in weights))
    for w in weights:
        n = len(w)
        value = (w * terms_of(t[:n])).sum(0)
        gradient = t[0] - (signed(n) * w * t[1 : n + 1]).sum(0)
        yield torch.stack([value, gradient, (w > 0).double().sum(0).expand(draws)])


def counted_sd(j: Tensor, key: Key, draws: int = 10_000) -> float:
    """Standard deviation of the value in which every further length up to COUNTED has its exact probability."""
    terms, law, parameter = key
    t = products(j, torch.randint(2, (draws, len(j))).to(j.dtype) * 2 - 1, terms + COUNTED)
    head, steps = terms_of(t)[:terms].sum(0), terms_of(t)[terms:]
    estimator = RouletteEstimator(terms, law, parameter, "rademacher")  # type: ignore[arg-type]
    tails = torch.tensor([estimator.tail(m) for m in range(COUNTED + 2)], dtype=torch.float64).unsqueeze(1)
    values = head + torch.cat([0 * head[None], (steps / tails[1:-1]).cumsum(0)])
    chance = torch.cat([tails[:-2] - tails[1:-1], tails[-2:-1]])  # longer ones count as COUNTED
    mean = (chance * values).sum(0).mean()
    return float(((chance * values.square()).sum(0).mean() - mean.square()).clamp_min(0).sqrt())


def exact(j: Tensor) -> tuple[float, float]:
    """log|det(I + J)| and tr((I + J)^-1 J)."""
    whole = torch.eye(len(j), dtype=j.dtype) + j
    return float(torch.linalg.slogdet(whole).logabsdet), float(torch.linalg.solve(whole, j).trace())


def cut_bias(j: Tensor, terms: int) -> float:
    """Error of the series of the first terms."""
    traces = products(j, math.sqrt(len(j)) * torch.eye(len(j), dtype=j.dtype), terms).mean(1, keepdim=True)
    return float(terms_of(traces).sum()) - exact(j)[0]


def measure(points: list[list[Tensor]], draws: int, name: str) -> list[dict[str, Any]]:
    """One row per estimator of the sum over a point's Jacobians; the spread is that of the draws at one point."""
    exacts = torch.tensor([[exact(j) for j in p] for p in points], dtype=torch.float64).sum(1).mean(0)
    rows = []
    for probe in PROBES:
        drawn = torch.zeros(len(KEYS), len(points), 3, draws, dtype=torch.float64)
        for i, point in enumerate(track(points, f"{name}, {probe}", transient=True)):
            for j in point:
                for e, sample in enumerate(estimates(j, probe, draws)):
                    drawn[e, i] += sample
        for key, all_draws in zip(KEYS, drawn, strict=True):
            sd = all_draws.var(2).mean(0).sqrt()
            bias, error = all_draws.mean((0, 2))[:2] - exacts, sd / math.sqrt(len(points) * draws)
            row = dict(zip(("exact_terms", "law", "parameter"), key, strict=True)) | {"probe": probe}
            row |= {"products": float(all_draws[:, 2].mean()), "draws": len(points) * draws}
            for i, what in enumerate(("value", "gradient")):
                row[what] = {"bias": float(bias[i]), "bias_se": float(error[i]), "sd": float(sd[i])}
            if key[1] is None:
                row["exact_bias"] = sum(cut_bias(j, key[0]) for point in points for j in point) / len(points)
            rows.append(row | {"variance_times_products": float(sd[0]) ** 2 * row["products"]})
    return rows


def strong_jacobian() -> Tensor:
    """J of a block of the package, close to symmetric, negative: each map undoes the one before; slopes near 1."""
    settings = {"shape": [1, 4, 4], "blocks": [1], "idim": 8, "fc_blocks": 0, "actnorm": False}
    (block,) = acf.build(settings).double().contractive_blocks().values()
    maps = [part for part in block.branch if isinstance(part, Normalised)]
    with torch.no_grad():
        maps[1].weight.copy_(torch.eye(8).view(8, 8, 1, 1))
        maps[2].weight.copy_(-maps[0].weight.transpose(0, 1).flip(2, 3))
        for part, bias in zip(maps, (2.46, 0.4, 0.0), strict=True):  # LipSwish is steepest at 2.46
            part.weight.add_(0.003 * torch.randn_like(part.weight)).mul_(10)
            part.bias.fill_(bias)
            part.converge_norm(1e-6, 2000)
    x = 0.1 * torch.randn(1, 1, 4, 4, dtype=torch.float64)
    j = jacobian(block.branch, x).detach()[0]
    weighted_probe = RouletteEstimator(5, "poisson", 2.0, "gaussian").weighted_probe(x, per_sample=True)
    _, value, _ = value_and_neumann(block.branch, x.requires_grad_(True), weighted_probe)
    t = products(j, weighted_probe.probe.flatten(1), len(weighted_probe.weights))
    # This script computes what the package does.
    torch.testing.assert_close((weighted_probe.weights * terms_of(t)).sum(0), value)
    return j


def measure_strong() -> dict[str, Any]:
    """All estimators on the strong block, in ten parts of the draws."""
    j = strong_jacobian()
    rows = measure([[j]] * 10, STRONG_DRAWS // 10, "strong block")
    for row in rows:
        if row["probe"] == "rademacher" and row["law"]:
            row["counted_sd"] = counted_sd(j, (row["exact_terms"], row["law"], row["parameter"]))
    facts = {"dimension": len(j), "spectral_radius": float(torch.linalg.eigvals(j).abs().max())}
    return {**facts, "log_det": exact(j)[0], "gradient": exact(j)[1], "estimators": rows}


def measure_flow(folder: Path) -> dict[str, Any]:
    """All estimators on the first test images, summed over the residual blocks of a trained flow."""
    flow = load(folder).double()
    images = data.load("digits", "test", ROOT / "data")[:IMAGES]
    inputs: dict[str, Tensor] = {}
    blocks = flow.contractive_blocks()
    for name, block in blocks.items():
        block.branch.register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0].detach()}))
    flow.transform(dequantise(images, flow.config.levels, torch.Generator().manual_seed(SEED), torch.float64))
    js = [jacobian(block.branch, inputs[name]).detach() for name, block in blocks.items()]
    points = [[j[i] for j in js] for i in range(IMAGES)]
    rows = measure(points, FLOW_DRAWS, folder.parent.name)
    log_det = [sum(exact(j)[0] for j in point) for point in points]
    largest = max(float(torch.linalg.eigvals(j).abs().max()) for j in js)
    facts = {"weights_sha256": weights_hash(folder), "blocks": len(blocks), "dimension": js[0].shape[-1]}
    return {**facts, "images": IMAGES, "largest_spectral_radius": largest, "log_det": log_det, "estimators": rows}


def main() -> None:
    torch.manual_seed(SEED)
    folders = sorted(path.parent for path in (ROOT / "models").glob("digits*/*/seed0/model.safetensors"))
    result = {"command": COMMAND, "date": datetime.now(UTC).isoformat(timespec="seconds"), "seed": SEED}
    result |= {"counted": COUNTED, "flow_draws": IMAGES * FLOW_DRAWS, "images": IMAGES}
    result |= {"machine": describe_device(torch.device("cpu")), "torch": torch.__version__, "draws": STRONG_DRAWS}
    result |= {"strong": measure_strong()}
    result |= {"flows": {folder.parent.name: measure_flow(folder) for folder in folders}}
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    TABLE.write_text(markdown(result), encoding="utf-8")


if __name__ == "__main__":
    main()
