"""`data/<dataset>/manifest.json`: what the tensor files and the labels beside it hold."""

import math
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
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


class Column(BaseModel):
    """One column of a table: x in the table's units is standardised to (x - mean) / std."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    mean: FiniteFloat
    std: Annotated[FiniteFloat, Field(gt=0)]


class Manifest(BaseModel):
    """Shape, range, counts and content hashes of a prepared data set.

    Of images, `shape` is (C, H, W) and `bits` is log2 of `levels`. Of vectors, `shape` is (D,), and `columns` says what
    each value is and how it was standardised; they have no levels. `sha256` is over the tensors' bytes in N, C, H, W or
    N, D order, so it does not depend on the file format or on the version of torch that wrote it. `labels` is the
    SHA-256 of labels.json; None in manifests of earlier versions, which kept no labels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    dataset: str
    shape: tuple[PositiveInt, PositiveInt, PositiveInt] | tuple[PositiveInt]
    levels: int | None = Field(default=None, ge=2, le=256)
    bits: float | None = None
    columns: list[Column] | None = None
    counts: PerSplit[PositiveInt]
    sha256: PerSplit[Sha256]
    labels: Sha256 | None = None
    source: str

    @property
    def is_of_images(self) -> bool:
        """Whether the samples are images and not vectors of real numbers."""
        return len(self.shape) == 3

    @property
    def unit(self) -> str:
        """What the samples are called, "images" or "rows"."""
        return "images" if self.is_of_images else "rows"

    def content(self) -> bytes:
        """Return the content of manifest.json."""
        return self.model_dump_json(indent=2, exclude_none=True).encode() + b"\n"

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.is_of_images and (self.levels is None or self.bits is None or self.columns is not None):
            raise ValueError("images have levels and bits, and no columns")
        if not self.is_of_images and (self.levels is not None or self.bits is not None):
            raise ValueError("vectors have neither levels nor bits")
        if not self.is_of_images and len(self.columns or ()) != self.shape[0]:
            raise ValueError(f"there are {len(self.columns or ())} columns for {self.shape[0]} values")
        return self

    @model_validator(mode="after")
    def _bits_of_levels(self) -> Self:
        if self.levels is not None and self.bits is not None and not math.isclose(self.bits, math.log2(self.levels)):
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
