"""Reads all result files of one data set and says which are missing and which command makes them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from pydantic import BaseModel, ValidationError

from acf.errors import AcfError, ConfigError
from acf.registry import BASELINES
from acf.settings.params import PARAMS_FILE, Params, Run

SHOWN_MISSING = 8
HISTORY_COLUMNS = ("step", "seconds", "train_bits_per_dim", "validation_bits_per_dim", "validation_se")


class Block(BaseModel):
    """One residual block and the proven bound of its branch's Lipschitz constant."""

    name: str
    upper: float


class Certificate(BaseModel):
    """The bounds of all blocks of a flow; `worst` is the largest."""

    worst: float
    worst_block: str
    blocks: list[Block]


class Parts(BaseModel):
    """The summands of bits/dim."""

    log_prob_z: float
    log_abs_det: float
    dequantisation: float


class Metrics(BaseModel):
    """`metrics.json` of one run (docs/architecture.md)."""

    variant: str
    seed: int
    bits_per_dim: float
    bits_per_dim_se: float
    bits_per_dim_se_draws: float | None
    parts: Parts
    parameters: int
    certificate: Certificate
    reconstruction_error: float
    reconstruction_images: int
    test_images: int
    draws: int
    estimator: dict[str, Any]
    evaluate_seconds: float
    images_per_second: float
    train_seconds: float
    train_steps: int
    device: str
    recipe: str
    train_device: str | None = None
    train_recipe: str | None = None
    versions: dict[str, str]


class Baseline(BaseModel):
    """One entry of `baselines.json`."""

    bits_per_dim: float
    bits_per_dim_se: float
    parameters: int


class Baselines(BaseModel):
    """`baselines.json` of one data set (docs/architecture.md)."""

    test_images: int
    draws: int
    baselines: dict[str, Baseline]
    not_available: dict[str, str] = {}
    """Baselines that cannot be fitted to the data set, with the reason."""


@dataclass(frozen=True)
class Results:
    """Everything a report shows about one data set."""

    dataset: str
    baselines: Baselines
    metrics: dict[str, list[Metrics]]
    """Per variant, in the order of `params.yaml`, one per seed."""
    histories: dict[str, list[pd.DataFrame]]
    pictures: dict[str, Path]
    """Per variant, the sample folder of its first seed."""
    bases: dict[str, str | None]
    """Per variant with attention, the one without on the same branch; None where there is none."""

    @property
    def reference(self) -> str:
        """The baseline that gains are counted from: of those that could be fitted, the last in the registry."""
        return [name for name in BASELINES if name in self.baselines.baselines][-1]

    @property
    def runs(self) -> list[Metrics]:
        """The metrics of all variants and seeds."""
        return [metrics for seeds in self.metrics.values() for metrics in seeds]


def read_results(dataset: str, root: Path) -> Results:
    """Read the result files of all runs that `params.yaml` names for `dataset`.

    Raises:
        ConfigError: no such experiment, or files are missing; the message names them and their commands.
        AcfError: a file does not have the form of docs/architecture.md.
    """
    params = Params(root / PARAMS_FILE)
    variants = {v: [Run(dataset, v, seed) for seed in params.seeds(dataset)] for v in params.variants(dataset)}
    _check_present(dataset, [run for runs in variants.values() for run in runs], root)
    baselines = _read(root / "results" / dataset / "baselines.json", Baselines)
    if absent := [name for name in BASELINES if name not in baselines.baselines | baselines.not_available]:
        path = f"results/{dataset}/baselines.json"
        raise AcfError(f"{path} lacks {', '.join(absent)}; run: acf baselines --dataset {dataset}")
    return Results(
        dataset=dataset,
        baselines=baselines,
        metrics={
            v: [_read(root / "results" / run.folder / "metrics.json", Metrics) for run in runs]
            for v, runs in variants.items()
        },
        histories={
            v: [_read_history(root / "models" / run.folder / "history.csv") for run in runs]
            for v, runs in variants.items()
        },
        pictures={v: root / "samples" / runs[0].folder for v, runs in variants.items()},
        bases=_bases(params, dataset),
    )


def _bases(params: Params, dataset: str) -> dict[str, str | None]:
    models = {variant: params.resolve(dataset, variant).model for variant in params.variants(dataset)}
    plain = {model.branch: variant for variant, model in models.items() if model.attention.kind == "none"}
    return {
        variant: None if model.attention.kind == "none" else plain.get(model.branch)
        for variant, model in models.items()
    }


def _check_present(dataset: str, runs: list[Run], root: Path) -> None:
    needed = {f"results/{dataset}/baselines.json": f"acf baselines --dataset {dataset}"}
    for run in runs:
        options = f"--dataset {run.dataset} --variant {run.variant} --seed {run.seed}"
        needed[f"models/{run.folder.as_posix()}/history.csv"] = f"acf train {options}"
        needed[f"results/{run.folder.as_posix()}/metrics.json"] = f"acf evaluate {options}"
        for name in ("samples.png", "reconstructions.png"):
            needed[f"samples/{run.folder.as_posix()}/{name}"] = f"acf sample {options}"
    missing = [f"  {file}  (made by: {command})" for file, command in needed.items() if not (root / file).is_file()]
    if missing:
        more = [f"  and {len(missing) - SHOWN_MISSING} more"] if len(missing) > SHOWN_MISSING else []
        lines = [f"the report on {dataset} needs files that are missing:", *missing[:SHOWN_MISSING], *more]
        raise ConfigError("\n".join([*lines, f"all at once: dvc repro report@{dataset}"]))


Model = TypeVar("Model", bound=BaseModel)


def _read(path: Path, model: type[Model]) -> Model:
    try:
        return model.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise AcfError(f"{path}: {where}: {first['msg']}; delete the file and run its stage again") from None
    except ValueError as error:
        raise AcfError(f"{path} is not JSON: {error}; delete the file and run its stage again") from None


def _read_history(path: Path) -> pd.DataFrame:
    try:
        history = pd.read_csv(path)
    except ValueError as error:
        raise AcfError(f"{path} is not a table: {error}; delete the file and run its stage again") from None
    if absent := [column for column in HISTORY_COLUMNS if column not in history]:
        raise AcfError(f"{path} lacks the columns {', '.join(absent)}; delete the file and run its stage again")
    return history
