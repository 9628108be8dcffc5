"""The schemas of result files: what a stage may write, and what a report accepts.

Every number is finite and of a possible sign, so that no comparison in a report is one with NaN or infinity.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, model_validator

from acf.errors import shown

LARGEST = 1e15
"""Beyond any measurement; sums and differences of smaller numbers stay finite."""

Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=int(LARGEST))]
Bound = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
"""A proven Lipschitz bound: `acf evaluate` measures no flow that has none below 1."""
Name = Annotated[str, Field(min_length=1)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
"""SHA-256 of a file."""


class Stored(BaseModel):
    """Part of a JSON file; keys that are not in the schema are of no concern, and no text is read as a number."""

    model_config = ConfigDict(strict=True, frozen=True)


class Block(Stored):
    """One residual block and the proven bound of its branch's Lipschitz constant."""

    name: str
    upper: Bound


class StoredCertificate(Stored):
    """The bounds of all blocks of a flow; `worst` is the largest."""

    worst: Bound
    worst_block: str
    blocks: list[Block] = Field(min_length=1)

    @model_validator(mode="after")
    def _worst_of_blocks(self) -> Self:
        largest = max(self.blocks, key=lambda block: block.upper)
        if (self.worst, self.worst_block) != (largest.upper, largest.name):
            raise ValueError(
                f"the worst bound is said to be {self.worst} of {self.worst_block}, "
                f"but the largest is {largest.upper} of {largest.name}"
            )
        return self


class Parts(Stored):
    """The summands of bits/dim."""

    log_prob_z: Number
    log_abs_det: Number
    dequantisation: Number


class OfModel(Stored):
    """What a file says of the model that something was measured of, and of what measured it."""

    experiment: Name
    dataset: Name
    variant: Name
    seed: int
    train_recipe: str | None
    device: str
    recipe: str
    versions: dict[str, str]


class Metrics(OfModel):
    """`metrics.json` of one run (docs/architecture.md)."""

    bits_per_dim: Number
    bits_per_dim_se: NotNegative
    bits_per_dim_se_draws: NotNegative | None
    parts: Parts
    parameters: Count
    certificate: StoredCertificate
    reconstruction_error: NotNegative
    reconstruction_images: PositiveInt
    test_images: PositiveInt
    draws: PositiveInt
    estimator: dict[str, str | bool | int | Number | None]
    evaluate_seconds: NotNegative
    images_per_second: NotNegative
    train_seconds: NotNegative
    train_steps: Count
    train_device: str | None = None
    train_recipe: str | None = None
    images_sha256: Digest | None = None
    """Of the table of single images; None in files of earlier versions, which wrote none."""

    @property
    def means(self) -> dict[str, float]:
        """Means of the columns of the table of single images."""
        return {"bits_per_dim": self.bits_per_dim} | self.parts.model_dump(exclude={"dequantisation"})

    @model_validator(mode="after")
    def _parts_add_up(self) -> Self:
        total = math.fsum(self.parts.model_dump().values())
        if not math.isclose(total, self.bits_per_dim, rel_tol=1e-6, abs_tol=1e-6):
            raise ValueError(f"bits_per_dim is {self.bits_per_dim}, but its parts add up to {total}")
        return self


class StoredBaseline(Stored):
    """One entry of `baselines.json`."""

    bits_per_dim: Number
    bits_per_dim_se: NotNegative
    parameters: Count


class Baselines(Stored):
    """`baselines.json` of one experiment (docs/architecture.md)."""

    experiment: Name
    dataset: Name
    test_images: PositiveInt
    draws: PositiveInt
    baselines: dict[str, StoredBaseline] = Field(min_length=1)
    not_available: dict[str, str] = {}
    """Baselines that cannot be fitted to the data set, with the reason."""
    recipe: str | None = None
    images_sha256: Digest | None = None
    """As in `Metrics`."""

    @property
    def means(self) -> dict[str, float]:
        """Means of the columns of the table of single images."""
        return {name: entry.bits_per_dim for name, entry in self.baselines.items()}


def _finite(model: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(model, allow_nan=False)
    except ValueError:
        raise ValueError("it holds NaN or infinity") from None
    return model


class TrainedModel(Stored):
    """`config.json` of a model; its section `model` is a `ModelConfig`.

    `acf train` writes all of it, `acf.save` what it is given, so that everything else may be missing.
    """

    experiment: Name | None = None
    dataset: Name | None = None
    variant: Name | None = None
    seed: int | None = None
    recipe: Name | None = None
    train_seconds: NotNegative | None = None
    train_steps: Count | None = None
    weights_step: Count | None = None
    device: str | None = None
    versions: dict[str, str] | None = None
    model: Annotated[dict[str, Any], AfterValidator(_finite)]


Cell = TypeVar("Cell")
OrEmpty: TypeAlias = Annotated[Cell | None, BeforeValidator(lambda cell: None if cell == "" else cell)]
"""A cell of a table, None where it is empty."""


def _of_seeds(cell: str) -> str:
    for entry in cell.split("; "):
        seed, _, value = entry.partition(": ")
        if not (seed.removeprefix("-").isdecimal() and abs(float(value)) <= LARGEST):
            raise ValueError(f"{shown(entry)} is not a seed and its bits/dim")
    return cell


OfSeeds = Annotated[str, AfterValidator(_of_seeds)]
"""Each seed and its bits/dim, `0: 1.98; 1: 1.99`."""
OVER_BASE = (
    *("base", "base_gain", "base_gain_se", "base_gain_low", "base_gain_high", "base_gain_over"),
    *("base_gain_training_df", "comparisons"),
)
"""Columns of a variant that was compared with its base."""
MEASURED_OF_FLOWS = (
    "bits_per_dim_of_seeds",
    *("seeds", "log_prob_z", "log_abs_det", "dequantisation", "certificate", "reconstruction_error"),
    *("train_seconds", "train_steps", "images_per_second"),
)


class Row(BaseModel):
    """One row of `table.csv`, the comparison table; what a row has no value for is None, an empty cell."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: Name
    kind: Literal["baseline", "flow"]
    seeds: OrEmpty[PositiveInt] = None
    bits_per_dim: Number
    bits_per_dim_se: NotNegative
    se_over: Literal["images", "seeds"]
    bits_per_dim_se_images: NotNegative
    bits_per_dim_of_seeds: OrEmpty[OfSeeds] = None
    gain: OrEmpty[Number] = None
    gain_se: OrEmpty[NotNegative] = None
    base: OrEmpty[Name] = None
    base_gain: OrEmpty[Number] = None
    base_gain_se: OrEmpty[NotNegative] = None
    base_gain_low: OrEmpty[Number] = None
    base_gain_high: OrEmpty[Number] = None
    base_gain_over: OrEmpty[Literal["images", "images and seeds"]] = None
    base_gain_training_df: OrEmpty[Count] = None
    comparisons: OrEmpty[PositiveInt] = None
    log_prob_z: OrEmpty[Number] = None
    log_abs_det: OrEmpty[Number] = None
    dequantisation: OrEmpty[Number] = None
    parameters: Count
    certificate: OrEmpty[Bound] = None
    reconstruction_error: OrEmpty[NotNegative] = None
    train_seconds: OrEmpty[NotNegative] = None
    train_steps: OrEmpty[Count] = None
    images_per_second: OrEmpty[NotNegative] = None
    device: OrEmpty[str] = None
    test_images: PositiveInt
    draws: PositiveInt

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.gain is None) != (self.gain_se is None):
            raise ValueError("a gain and its standard error go together")
        if len({getattr(self, name) is None for name in OVER_BASE}) > 1:
            raise ValueError(f"{', '.join(OVER_BASE)} go together")
        ends = [end for end in (self.base_gain_low, self.base_gain, self.base_gain_high) if end is not None]
        if ends != sorted(ends):
            raise ValueError(f"the interval of base_gain does not hold {self.base_gain}")
        if self.kind == "flow" and (absent := [name for name in MEASURED_OF_FLOWS if getattr(self, name) is None]):
            raise ValueError(f"a flow has no {', '.join(absent)}")
        return self


class HistoryRow(BaseModel):
    """The columns of `history.csv` that a report shows; those of a validation are empty where none took place."""

    model_config = ConfigDict(frozen=True)

    step: PositiveInt
    seconds: NotNegative
    images: Count
    train_bits_per_dim: Number
    validation_bits_per_dim: OrEmpty[Number]
    validation_se: OrEmpty[NotNegative]
