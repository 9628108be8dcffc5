"""A data set as `acf prepare` sees it: to add one takes one new file and one line in the registry."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar

from acf.data.download.downloads import Downloads
from acf.data.prepared.labels import Labels
from acf.data.prepared.manifest import Split


class Dataset(ABC):
    """A data set of images (`ImageDataset`) or of vectors of real numbers (`Table`).

    Attributes:
        name: its key in `acf.registry`, and its folder under `data/`.
        shape: (C, H, W) of one image; None for vectors, of which only the source tells how many values they have.
        levels: number of values a pixel can take; None for vectors.
        counts: number of samples of each split, or those it may have; None where only the source tells.
        sha256: of each split's tensor bytes, or None where they are not known beforehand.
        source: where the samples come from and how they were split, in one line.
        licence: under which they are handed out.
        citation: what to cite.
        remark: what a reader of results on it has to know, in sentences; every report on it has them.
        bytes: size of the download, or None.
        manual: whether a person has to put the source files in place.
    """

    name: ClassVar[str]
    shape: ClassVar[tuple[int, int, int] | None]
    levels: ClassVar[int | None]
    counts: ClassVar[Mapping[Split, int | Collection[int] | None]]
    sha256: ClassVar[Mapping[Split, str] | None] = None
    source: ClassVar[str]
    licence: ClassVar[str] = "not stated"
    citation: ClassVar[str] = "none"
    remark: ClassVar[str] = ""
    bytes: ClassVar[int | None] = None
    manual: ClassVar[bool] = False

    @abstractmethod
    def export(self, downloads: Downloads, scratch: Path) -> Mapping[Split, Path]:
        """Return one `.npy` file per split: uint8 images (N, H, W) or (N, H, W, C), or float64 vectors (N, D).

        Args:
            downloads: gives the source files.
            scratch: existing empty folder, removed afterwards, for arrays written on the way.

        Raises:
            DataError: the source is missing or damaged.
        """

    def labels(self, downloads: Downloads) -> Labels:
        """Return the class of each sample, in the order in which `export` has written the samples before.

        By default there are none.

        Args:
            downloads: gives the source files.

        Raises:
            DataError: the source is missing or damaged.
        """
        return Labels()
