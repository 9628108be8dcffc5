"""The schemas of result files: what a stage may write, and what a report accepts.

Every number is finite and of a possible sign, so that no comparison in a report is one with NaN or infinity.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, model_validator

LARGEST = 1e15
"""Beyond any measurement; sums and differences of smaller numbers stay finite."""

Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=int(LARGEST))]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Bound = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
"""A proven Lipschitz bound: `acf evaluate` measures no flow that has none below 1."""
Name = Annotated[str, Field(min_length=1)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
"""SHA-256 of a file."""


class Stored(BaseModel):
    """Part of a JSON file; keys that are not in the schema are of no concern, and no text is read as a number."""

    model_config = ConfigDict(strict=True, frozen=True)


class Block(Stored):
    """One contractive block and the proven bound of its branch's Lipschitz constant."""

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


class Bin(Stored):
    """Test images whose most probable class has a probability in one interval."""

    images: PositiveInt
    confidence: Share
    accuracy: Share


class Classification(Stored):
    """How the heads of a flow tell the labels of test images."""

    classes: Annotated[int, Field(ge=2)]
    accuracy: Share
    accuracy_se: NotNegative
    cross_entropy: NotNegative
    cross_entropy_se: NotNegative
    calibration_error: Share
    calibration_error_se: NotNegative
    calibration_error_floor: Share
    bins: list[Bin] = Field(min_length=1)

    @model_validator(mode="after")
    def _of_bins(self) -> Self:
        images = sum(bin.images for bin in self.bins)
        right = math.fsum(bin.images * bin.accuracy for bin in self.bins) / images
        gap = math.fsum(bin.images * abs(bin.accuracy - bin.confidence) for bin in self.bins) / images
        for name, value, of_bins in (
            ("accuracy", self.accuracy, right),
            ("calibration_error", self.calibration_error, gap),
        ):
            if not math.isclose(value, of_bins, rel_tol=1e-6, abs_tol=1e-6):
                raise ValueError(f"{name} is {value}, but that of the bins is {of_bins}")
        return self


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
    forward_error: NotNegative = 0.0
    """Of files of earlier versions, which knew no blocks with one: 0."""
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
    classification: Classification | None = None
    """Of a flow with classification heads."""

    @property
    def means(self) -> dict[str, float]:
        """Means of the columns of the table of single images."""
        means = {"bits_per_dim": self.bits_per_dim} | self.parts.model_dump(exclude={"dequantisation"})
        if (found := self.classification) is not None:
            means |= {"correct": found.accuracy, "label_log_prob": -found.cross_entropy}
        return means

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
