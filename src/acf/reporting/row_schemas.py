"""The schemas of the rows of tables: what a report writes and reads, and the history of a training."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, PositiveInt, model_validator

from acf.errors import shown
from acf.reporting.schemas import LARGEST, Bound, Count, Name, NotNegative, Number, Share

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


OF_LABELS = tuple(
    f"{name}{error}" for name in ("accuracy", "cross_entropy", "calibration_error") for error in ("", "_se")
)
"""Columns of a flow with classification heads, which the table of an experiment without such flows does not have."""


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
    accuracy: OrEmpty[Share] = None
    accuracy_se: OrEmpty[NotNegative] = None
    cross_entropy: OrEmpty[NotNegative] = None
    cross_entropy_se: OrEmpty[NotNegative] = None
    calibration_error: OrEmpty[Share] = None
    calibration_error_se: OrEmpty[NotNegative] = None

    may_lack: ClassVar[tuple[str, ...]] = OF_LABELS

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


class CurveRow(BaseModel):
    """A row of `curves/<experiment>.csv`; the columns of a validation are empty where none took place."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    experiment: Name
    variant: Name
    seed: int
    step: PositiveInt
    seconds: NotNegative
    train_bits_per_dim: OrEmpty[Number]
    validation_bits_per_dim: OrEmpty[Number]


class HistoryRow(BaseModel):
    """The columns of `history.csv` that a report shows.

    Those of a validation are empty where none took place, and those of a measure that the task does not have.
    """

    model_config = ConfigDict(frozen=True)

    step: PositiveInt
    seconds: NotNegative
    images: Count
    train_bits_per_dim: OrEmpty[Number]
    validation_bits_per_dim: OrEmpty[Number]
    validation_se: OrEmpty[NotNegative]
    validation_accuracy: OrEmpty[Share] = None
    validation_accuracy_se: OrEmpty[NotNegative] = None

    may_lack: ClassVar[tuple[str, ...]] = ("validation_accuracy", "validation_accuracy_se")
    """Columns that earlier versions did not write."""
