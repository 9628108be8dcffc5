"""The forms of result files, and everything that a report shows about one experiment."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from pydantic import BaseModel, ValidationError

from acf.errors import AcfError
from acf.registry import BASELINES

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
    """`baselines.json` of one experiment (docs/architecture.md)."""

    test_images: int
    draws: int
    baselines: dict[str, Baseline]
    not_available: dict[str, str] = {}
    """Baselines that cannot be fitted to the data set, with the reason."""


@dataclass(frozen=True)
class Results:
    """Everything a report shows about one experiment."""

    experiment: str
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


Model = TypeVar("Model", bound=BaseModel)


def read_result(path: Path, model: type[Model]) -> Model:
    """Return the content of a JSON file in the form of `model`.

    Raises:
        AcfError: the file is not JSON or does not have this form; names file and key.
    """
    try:
        return model.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise AcfError(f"{path}: {where}: {first['msg']}; delete the file and run its stage again") from None
    except ValueError as error:
        raise AcfError(f"{path} is not JSON: {error}; delete the file and run its stage again") from None


def read_history(path: Path) -> pd.DataFrame:
    """Return the table in a history.csv.

    Raises:
        AcfError: the file is not a table or lacks a column; names it.
    """
    try:
        history = pd.read_csv(path)
    except ValueError as error:
        raise AcfError(f"{path} is not a table: {error}; delete the file and run its stage again") from None
    if absent := [column for column in HISTORY_COLUMNS if column not in history]:
        raise AcfError(f"{path} lacks the columns {', '.join(absent)}; delete the file and run its stage again")
    return history
