"""Images in one `.npy` file: a data set of one's own, divided by a seed."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from acf.data.download.downloads import Downloads
from acf.data.formats.npy import PIECE, NpyFile, NpyWriter
from acf.data.prepared.manifest import Split
from acf.data.sources.split import Divided
from acf.errors import DataError


class ArrayFile(Divided):
    """Base of data sets from a `.npy` file, uint8 (N, H, W) or (N, H, W, C), of 256 levels unless a class says fewer.

    Attributes:
        array: path of the file; ~ is the home folder.
    """

    array: ClassVar[str]
    levels = 256

    def export(self, downloads: Downloads, scratch: Path) -> Mapping[Split, Path]:
        """Write the images of each split to a `.npy` file of its own."""
        path = Path(self.array).expanduser()
        downloads.used.append(path)
        return write_split(path, scratch, self.divide)


def write_split(path: Path, scratch: Path, divide: Callable[[int], Mapping[Split, np.ndarray]]) -> Mapping[Split, Path]:
    """Write the parts of an array, each image where `divide` says, to `.npy` files of their own.

    Raises:
        DataError: the array is missing, damaged, of another type, or has fewer than two images.
    """
    images = NpyFile(path)
    if len(images.shape) not in (3, 4) or images.shape[0] < 2 or 0 in images.shape:
        raise DataError(
            f"{path} has shape {images.shape}; expected at least two images, (N, H, W) or (N, H, W, C); replace it"
        )
    count, *shape = images.shape
    chosen = divide(count)
    paths = {split: scratch / f"{split}.npy" for split in chosen}
    for split, indices in chosen.items():
        wanted = np.zeros(count, bool)
        wanted[indices] = True
        start = 0
        with NpyWriter(paths[split], tuple(shape)) as writer:
            for piece in images.chunks(PIECE):
                writer.append(piece[wanted[start : start + len(piece)]])
                start += len(piece)
    return paths
