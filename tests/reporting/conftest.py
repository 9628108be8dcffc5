"""A project folder with result files in the forms of docs/architecture.md, numbers invented for the tests."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from acf.reporting.image_table import image_table
from tests.undrawn import leave_out_figures

VARIANTS = {
    "resflow": {},
    "acf-l2": {"model": {"attention": {"kind": "l2"}}},
    "acf-dot": {"model": {"attention": {"kind": "dot"}}},
}
IDENTITY = ("experiment", "dataset")
OWN = 0.2
"""Share of a model's own in how bits/dim differ between images; everything else is common to all models."""
BITS = {"resflow": 2.04, "acf-l2": 1.93, "acf-dot": 2.03}


def write_params(root: Path, seeds: list[int]) -> None:
    sections = ("model", "training", "evaluation", "sampling", "analyses", "reporting")
    shared = {"seeds": seeds, "variants": {v: {} for v in VARIANTS}} | {s: {} for s in sections}
    params = {
        "defaults": {s: {} for s in sections},
        "variants": VARIANTS,
        "datasets": {"digits": {}, "fashion-mnist": {}},
        "experiments": {name: {"dataset": name} | shared for name in ("digits", "fashion-mnist")},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def train_seconds(variant: str, seed: int) -> float:
    return 64.0 + 16 * len(variant) + seed


def metrics(variant: str, seed: int) -> dict:
    bits = BITS[variant] + 0.01 * seed
    blocks = [{"name": f"scale1.block{i}", "upper": 0.9 + 0.007 * ((7 * i + seed) % 11)} for i in range(14)]
    worst = max(blocks, key=lambda block: block["upper"])
    return {
        "experiment": "digits",
        "dataset": "digits",
        "variant": variant,
        "seed": seed,
        "bits_per_dim": bits,
        "bits_per_dim_se": 0.0123,
        "bits_per_dim_se_draws": 0.00123,
        "parts": {"log_prob_z": 5.25, "log_abs_det": bits - 9.33746284, "dequantisation": 4.08746284},
        "parameters": 84000 + 100 * len(variant),
        "certificate": {"worst": worst["upper"], "worst_block": worst["name"], "blocks": blocks},
        "reconstruction_error": 1.25e-6 * (seed + 1),
        "reconstruction_images": 297,
        "test_images": 297,
        "draws": 4,
        "estimator": {"exact_terms": 20, "distribution": "poisson", "parameter": 2.0, "probe": "rademacher"},
        "evaluate_seconds": 3.21,
        "images_per_second": 370.1,
        "train_seconds": train_seconds(variant, seed),
        "train_steps": 800,
        "device": "cpu, Imaginary Processor 9000, 2 threads",
        "recipe": f"0123456789abcde{seed}",
        "train_device": "cpu, Imaginary Processor 9000, 2 threads",
        "train_recipe": f"fedcba987654321{seed}",
        "versions": {"acf": "0.1.0", "torch": "2.13.0"},
    }


def history(variant: str, seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    step = np.arange(10, 801, 10)
    bits = BITS[variant] + 2.5 * np.exp(-step / 90)
    checked = step % 100 == 0
    return pd.DataFrame(
        {
            "step": step,
            "seconds": step / step[-1] * train_seconds(variant, seed),
            "images": step * 64,
            "train_bits_per_dim": bits + generator.normal(0, 0.06, len(step)),
            "gradient_norm": 1.0,
            "learning_rate": 2e-3,
            "validation_bits_per_dim": np.where(checked, bits + 0.03, np.nan),
            "validation_se": np.where(checked, 0.02, np.nan),
        }
    )


def picture(path: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    Image.fromarray(generator.integers(0, 256, (64, 64), dtype=np.uint8)).save(path)


def write_with_images(root: Path, path: str, content: dict, images: str) -> None:
    """Write results with their table of images, whose columns have the means and standard errors of the results.

    Most of how images differ is common to all tables, some to the seeds of a variant, and the rest is a table's own.
    """
    N = content["test_images"]
    columns = content.get("baselines", {"bits_per_dim": content})
    common = standardised(np.random.default_rng(0).normal(size=N))
    table = {}
    for name, entry in columns.items():
        variant, table_alone = (
            np.random.default_rng(list(f"{place}{name}".encode())).normal(size=N)
            for place in (Path(images).parents[1], images)
        )
        own = 0.9 * variant + 0.4 * table_alone
        own = standardised(own - own @ common / N * common)
        values = standardised(np.sqrt(1 - OWN**2) * common + OWN * own)
        table[name] = entry["bits_per_dim"] + np.sqrt(N) * entry["bits_per_dim_se"] * values
    if "baselines" not in content:
        table |= {"log_prob_z": np.full(N, 5.25), "log_abs_det": table["bits_per_dim"] - 5.25 - 4.08746284}
    csv = image_table(table)
    (root / images).parent.mkdir(parents=True, exist_ok=True)
    (root / images).write_bytes(csv)
    (root / path).write_text(json.dumps(content | {"images_sha256": hashlib.sha256(csv).hexdigest()}))


def standardised(values: np.ndarray) -> np.ndarray:
    """Return the values with mean 0 and standard deviation 1, as the standard error over images takes it."""
    return (values - values.mean()) / values.std(ddof=1)


def sampled(variant: str, seed: int) -> dict:
    """What the stage `sample` measured."""
    distances = [1.0 + 0.01 * place for place in range(40)]
    both = {"distances": distances, "places": list(range(40))}
    shared = ("experiment", "dataset", "variant", "seed", "device", "train_recipe", "recipe", "versions")
    return {
        **{key: metrics(variant, seed)[key] for key in shared},
        "settings": {},
        "temperatures": [{"temperature": t, "mean": 0.3, "spread": 0.21 * t} for t in (1.0, 0.7)],
        "test": {"mean": 0.3, "spread": 0.23},
        "nearest": {"training_images": 1500, "samples": both, "test": both},
        "reconstructions": {"largest": [1e-6], "mean": [1e-7], "changed": [0], "block_bound": [1e-3]},
        "seconds": 2.5,
    }


def write_results(root: Path, seeds: list[int]) -> None:
    baselines = {
        "uniform": {"bits_per_dim": 4.08746284, "bits_per_dim_se": 0.0, "parameters": 0},
        "histogram": {"bits_per_dim": 2.81234567, "bits_per_dim_se": 0.0234, "parameters": 1024},
        "gaussian": {"bits_per_dim": 2.23456789, "bits_per_dim_se": 0.0345, "parameters": 2144},
    }
    (root / "results/digits").mkdir(parents=True)
    content = {"experiment": "digits", "dataset": "digits", "test_images": 297, "draws": 4, "baselines": baselines}
    write_with_images(root, "results/digits/baselines.json", content, "analyses/digits/baselines.csv")
    for variant in VARIANTS:
        for seed in seeds:
            models, results, samples = (
                root / kind / "digits" / variant / f"seed{seed}" for kind in ("models", "results", "samples")
            )
            for folder in (models, results, samples):
                folder.mkdir(parents=True)
            history(variant, seed).to_csv(models / "history.csv", index=False)
            (models / "config.json").write_text(json.dumps({"recipe": f"fedcba987654321{seed}", "model": {}}))
            run = f"digits/{variant}/seed{seed}"
            path, table = f"results/{run}/metrics.json", f"analyses/{run}/images.csv"
            write_with_images(root, path, metrics(variant, seed), table)
            write_analyses(root, variant, seed)
            (samples / "samples.json").write_text(json.dumps(sampled(variant, seed)))
            for place, name in enumerate(("samples", "reconstructions", "temperatures", "nearest")):
                picture(samples / f"{name}.png", seed + place)


FOUND = {
    "interpolation": {
        **{
            kind: {"t": [0.0, 0.5, 1.0], "bits_per_dim": [[2.0, 2.5, 2.1], [2.2, 2.4, 2.0]], "outside": 0.01}
            for kind in ("linear", "spherical")
        },
        "round_trip": 1e-4,
        "inverse_bound": 1e-3,
    },
    "attributes": {
        "reason": None,
        "arithmetic": {
            **{"alphas": [0.0, 1.0], "train_images": 1500, "classes": 10, "inverse_bound": 1e-3},
            "classifier": {"accuracy": 0.96, "se": 0.01},
            **{
                space: {
                    "taken": [[0, 0, 0], [1, 0, 1]],
                    "neighbour": [[0, 0, 0], [1, 0, 0]],
                    "distances": [[15.0, 17.0, 16.0], [20.0, 22.0, 23.0]],
                    "outside": 0.02,
                }
                for space in ("latent", "pixels")
            },
        },
    },
    "noise": {
        "sigmas": [0.0, 0.1],
        "bits_per_dim": [[2.0, 2.2, 1.9], [2.4, 2.7, 2.5]],
        "neighbours": {
            "train_images": 1500,
            "latent": [[1, 0, 1], [0, 0, 1]],
            "pixels": [[1, 1, 1], [1, 0, 1]],
        },
    },
    "frechet": {
        **{"distance": 0.41, "distance_se": 0.02, "floor": 0.11, "floor_se": 0.01, "bias": 0.1},
        **{"samples": 1000, "train_images": 1000, "test_images": 297, "features": 32, "fitted_images": 1500},
        **{"explained": 0.96, "fid": None, "fid_reason": "these images have 1 channel"},
    },
    "attention": {
        "images": 20,
        "pictures": [[[[0, 255], [128, 64]]]],
        "blocks": [
            {
                "name": "scale 1, block 2",
                "height": 2,
                "width": 2,
                "even_distance": 0.8535533905932737,
                "even_entropy": 1.3862943611198906,
                "heads": [{"distance": 0.5, "distance_se": 0.01, "entropy": 1.1, "entropy_se": 0.02}],
                "queries": [[1, 1]],
                "maps": [[[[[0.1, 0.2], [0.3, 0.4]]]]],
            }
        ],
        "not_available": [],
    },
    "audit": {
        "images": 20,
        "blocks": [
            {
                **{"name": f"scale 1, block {number}", "tokens": 4, "upper": 0.9, "local": 0.4, "found": 0.6},
                **{"ratio": 0.6 / 0.9, "attention": None, "share": None, "weight": None, "dependence": None},
            }
            for number in (1, 2)
        ],
    },
    "densities": {
        "sets": {
            name: {"mean": mean, "se": 0.1, "bits_per_dim": [mean - 0.1, mean + 0.1]}
            for name, mean in {"train": 1.9, "test": 2.0, "noise": 8.0}.items()
        },
        "gap": {"value": 0.1, "se": 0.14},
        "told_apart": {"noise": {"auroc": 1.0, "se": 0.0}},
    },
}
"""What each analysis found."""


def write_analyses(root: Path, variant: str, seed: int) -> None:
    folder = root / "analyses/digits" / variant / f"seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, found in FOUND.items():
        content = {
            "analysis": name,
            **{key: metrics(variant, seed)[key] for key in ("experiment", "dataset", "variant", "seed")},
            **{key: metrics(variant, seed)[key] for key in ("device", "train_recipe", "recipe", "versions")},
            "settings": {},
            "found": found,
            "seconds": 1.5,
        }
        (folder / f"{name}.json").write_text(json.dumps(content))
        picture(folder / f"{name}.png", seed)


def make_project(root: Path, seeds: list[int]) -> Path:
    write_params(root, seeds)
    write_results(root, seeds)
    return root


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_out_figures(monkeypatch)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Results of one seed."""
    return make_project(tmp_path, [0])


@pytest.fixture
def project_of_three_seeds(tmp_path: Path) -> Path:
    return make_project(tmp_path, [0, 1, 2])
