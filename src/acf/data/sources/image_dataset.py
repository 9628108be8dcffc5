"""A data set as `acf prepare` sees it: to add one takes one new file and one line in the registry."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import ClassVar

from acf.data.download.downloads import Downloads
from acf.data.prepared.labels import Labels
from acf.data.prepared.manifest import Split


class ImageDataset(ABC):
    """A data set of images with whole-numbered values, all of one size.

    Attributes:
        name: its key in `acf.registry.DATASETS`, and its folder under `data/`.
        shape: (C, H, W) of one image.
        levels: number of values a pixel can take; values lie in [0, levels).
        counts: number of images of each split, or those it may have; None where only the source tells.
        sha256: of each split's tensor bytes, or None where they are not known beforehand.
        source: where the images come from and how they were split, in one line.
        licence: under which the images are handed out.
        citation: what to cite.
        bytes: size of the download, or None.
        manual: whether a person has to put the source files in place.
    """

    name: ClassVar[str]
    shape: ClassVar[tuple[int, int, int]]
    levels: ClassVar[int]
    counts: ClassVar[Mapping[Split, int | Collection[int] | None]]
    sha256: ClassVar[Mapping[Split, str] | None] = None
    source: ClassVar[str]
    licence: ClassVar[str] = "not stated"
    citation: ClassVar[str] = "none"
    bytes: ClassVar[int | None] = None
    manual: ClassVar[bool] = False

    @abstractmethod
    def export(self, downloads: Downloads, scratch: Path) -> Mapping[Split, Path]:
        """Return one `.npy` file per split, uint8 of shape (N, H, W) or (N, H, W, C).

        Args:
            downloads: gives the source files.
            scratch: existing empty folder, removed afterwards, for arrays written on the way.

        Raises:
            DataError: the source is missing or damaged.
        """

    def labels(self, downloads: Downloads) -> Labels:
        """Return the class of each image, in the order in which `export` has written the images before.

        By default there are none.

        Args:
            downloads: gives the source files.

        Raises:
            DataError: the source is missing or damaged.
        """
        return Labels()
