"""`data/<dataset>/labels.json`: the classes of the images, where the source of a data set has any."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from acf.data.prepared.manifest import ROOT, SPLITS, Manifest, prepare_hint, read_manifest
from acf.errors import DataError, dotted

Class = Annotated[int, Field(ge=0)]


class Labels(BaseModel):
    """The class of each image, in the order of the images; None where the source has no labels.

    Attributes:
        names: of the classes; None where they have none.
        train: index of the class of each training image.
        test: the same of test images.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    names: list[str] | None = None
    train: list[Class] | None = None
    test: list[Class] | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.train is None) != (self.test is None):
            raise ValueError("one split has labels and the other has none")
        if self.names is not None:
            if self.train is None or self.test is None:
                raise ValueError("classes have names, but there are no labels")
            if (largest := max([*self.train, *self.test], default=0)) >= len(self.names):
                raise ValueError(f"label {largest} has no name among {len(self.names)}")
        return self

    @property
    def classes(self) -> int | None:
        """Number of classes: that of their names, or else one more than the largest label; None without labels."""
        if self.train is None or self.test is None:
            return None
        return max([*self.train, *self.test], default=-1) + 1 if self.names is None else len(self.names)

    def content(self) -> bytes:
        """Return the content of labels.json."""
        return (json.dumps(self.model_dump(), separators=(",", ":")) + "\n").encode()

    def fault(self, manifest: Manifest) -> str:
        """Return what is wrong with them as the labels of `manifest`'s images; an empty text if nothing is."""
        for split in SPLITS:
            labels: list[int] | None = getattr(self, split)
            if labels is not None and len(labels) != manifest.counts[split]:
                return f"{len(labels)} labels for {manifest.counts[split]} {split} images"
        return ""


def labels_path(dataset: str, root: Path = ROOT) -> Path:
    """Return the place of the labels of `dataset`."""
    return Path(root) / dataset / "labels.json"


def labels_hash(content: bytes) -> str:
    """Return the SHA-256 of labels.json, which the manifest has as `labels`."""
    return hashlib.sha256(content).hexdigest()


def kept_labels(manifest: Manifest) -> str:
    """Return the hash of the labels of a data set.

    Raises:
        DataError: it was prepared before labels were kept.
    """
    if manifest.labels is None:
        hint = prepare_hint(manifest.dataset)
        raise DataError(f"data set {manifest.dataset} was prepared by an earlier version, which kept no labels; {hint}")
    return manifest.labels


def read_labels(dataset: str, root: Path = ROOT) -> Labels:
    """Read `root/<dataset>/labels.json` and check it against the manifest.

    Raises:
        DataError: the data set was prepared before there were labels, or the file is missing, damaged or of other
            images; names it and the command that writes it again.
    """
    manifest = read_manifest(dataset, root)
    path, hint, expected = labels_path(dataset, root), prepare_hint(dataset), kept_labels(manifest)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} not found; {hint}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; {hint}") from None
    if (found := labels_hash(content)) != expected:
        raise DataError(f"{path} is damaged: its SHA-256 is {found}, the manifest has {expected}; {hint}")
    try:
        labels = Labels.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{path} is damaged: {dotted(first['loc']) or 'the file'}: {first['msg']}; {hint}") from None
    if fault := labels.fault(manifest):
        raise DataError(f"{path} has {fault}; {hint}")
    return labels
