"""Images in one `.npy` file: a data set of one's own, divided by a seed."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from acf.data.download.downloads import Downloads
from acf.data.formats.npy import PIECE, NpyFile, NpyWriter
from acf.data.prepared.labels import Labels
from acf.data.prepared.manifest import SPLITS, Split
from acf.data.sources.image_dataset import ImageDataset
from acf.data.sources.split import Divided
from acf.errors import DataError


class ArrayFile(Divided, ImageDataset):
    """Base of data sets from a `.npy` file, uint8 (N, H, W) or (N, H, W, C), of 256 levels unless a class says fewer.

    Attributes:
        array: path of the file; ~ is the home folder.
        label_array: path of a `.npy` file with the label of each image, whole numbers (N,) from 0; None for no labels.
    """

    array: ClassVar[str]
    label_array: ClassVar[str | None] = None
    levels = 256

    def export(self, downloads: Downloads, scratch: Path) -> Mapping[Split, Path]:
        """Write the images of each split to a `.npy` file of its own."""
        path = Path(self.array).expanduser()
        downloads.used.append(path)
        return write_split(path, scratch, self.divide)

    def labels(self, downloads: Downloads) -> Labels:
        """Read `label_array`, if the class has one, and divide the labels as the images.

        Raises:
            DataError: the file is missing or damaged, or it has not one label for each image.
        """
        if self.label_array is None:
            return Labels()
        path, count = Path(self.label_array).expanduser(), NpyFile(Path(self.array).expanduser()).shape[0]
        try:
            stored = np.load(path, allow_pickle=False)
        except FileNotFoundError:
            raise DataError(f"{path} not found; mend `label_array` of the class of {self.name}") from None
        except Exception as error:  # a damaged file can lead numpy to any kind of error
            reason = str(error).partition("\n")[0]
            raise DataError(f"{path} is no .npy file of labels: {reason}; replace it") from None
        if not isinstance(stored, np.ndarray) or stored.shape != (count,) or stored.dtype.kind not in "iu":
            raise DataError(f"{path} holds no {count} whole numbers, one for each image of {self.array}; replace it")
        if stored.min() < 0:
            raise DataError(f"{path} has the label {stored.min()}; labels are counted from 0")
        chosen = self.divide(count)
        return Labels(**{split: stored[chosen[split]].tolist() for split in SPLITS})


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
    return write_parts(images, scratch, divide)


def write_parts(
    stored: NpyFile, scratch: Path, divide: Callable[[int], Mapping[Split, np.ndarray]]
) -> Mapping[Split, Path]:
    """Write the parts of an array, each sample where `divide` says, to `.npy` files of their own."""
    count, *shape = stored.shape
    chosen = divide(count)
    paths = {split: scratch / f"{split}.npy" for split in chosen}
    for split, indices in chosen.items():
        wanted = np.zeros(count, bool)
        wanted[indices] = True
        start = 0
        with NpyWriter(paths[split], tuple(shape), stored.dtype) as writer:
            for piece in stored.chunks(PIECE):
                writer.append(piece[wanted[start : start + len(piece)]])
                start += len(piece)
    return paths
