"""`data/<dataset>/manifest.json`: what the tensor files and the labels beside it hold."""

import math
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    model_validator,
)

from acf.errors import DataError, dotted, shown

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")
ROOT = Path("data")

T = TypeVar("T")


def _both_splits(value: dict[Split, T]) -> dict[Split, T]:
    if missing := [split for split in SPLITS if split not in value]:
        raise ValueError(f"no entry for {', '.join(missing)}")
    return value


PerSplit = Annotated[dict[Split, T], AfterValidator(_both_splits)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """Shape, range, counts and content hashes of a prepared data set.

    `shape` is (C, H, W); `bits` is log2 of `levels`; `sha256` is over the tensors' bytes in N, C, H, W
    order, so it does not depend on the file format or on the version of torch that wrote it. `labels` is the SHA-256 of
    labels.json; None in manifests of earlier versions, which kept no labels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    dataset: str
    shape: tuple[PositiveInt, PositiveInt, PositiveInt]
    levels: int = Field(ge=2, le=256)
    bits: float
    counts: PerSplit[PositiveInt]
    sha256: PerSplit[Sha256]
    labels: Sha256 | None = None
    source: str

    @model_validator(mode="after")
    def _bits_of_levels(self) -> Self:
        if not math.isclose(self.bits, math.log2(self.levels)):
            raise ValueError(f"bits is {self.bits}, but log2 of {self.levels} levels is {math.log2(self.levels)}")
        return self


def prepare_hint(dataset: str) -> str:
    """Return the half sentence that tells how to get a missing or damaged file."""
    return f"run: acf prepare --dataset {dataset}"


def manifest_path(dataset: str, root: Path = ROOT) -> Path:
    """Return the place of the manifest of `dataset`."""
    return Path(root) / dataset / "manifest.json"


def read_manifest(dataset: str, root: Path = ROOT) -> Manifest:
    """Read `root/<dataset>/manifest.json`.

    Raises:
        DataError: missing, unreadable, not of the schema, or of another data set.
    """
    path = manifest_path(dataset, root)
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path} not found; {prepare_hint(dataset)}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; {prepare_hint(dataset)}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = dotted(first["loc"]) or "the file"
        raise DataError(f"{path} is damaged: {place}: {first['msg']}; {prepare_hint(dataset)}") from None
    if manifest.dataset != dataset:
        raise DataError(f"{path} is of data set {shown(manifest.dataset)}; {prepare_hint(dataset)}")
    return manifest
