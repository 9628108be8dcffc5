"""MNIST (LeCun, Cortes and Burges)."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from acf.data.download.downloads import Downloads
from acf.data.download.fetch import Remote
from acf.data.formats.idx import read_idx
from acf.data.formats.npy import write_npy
from acf.data.prepared.labels import Labels
from acf.data.prepared.manifest import Split
from acf.data.sources.digits import DIGITS
from acf.data.sources.image_dataset import ImageDataset
from acf.errors import DataError

URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FILES: dict[Split, Remote] = {  # MD5 as published by torchvision, whose mirror this is
    "train": Remote(
        "train-images-idx3-ubyte.gz", URL + "train-images-idx3-ubyte.gz", md5="f68b3c2dcbeaaa9fbdd348bbdeb94873"
    ),
    "test": Remote(
        "t10k-images-idx3-ubyte.gz", URL + "t10k-images-idx3-ubyte.gz", md5="9fb629c4189551a2d022fa330f9573f3"
    ),
}
LABEL_FILES: dict[Split, Remote] = {  # the same
    "train": Remote(
        "train-labels-idx1-ubyte.gz", URL + "train-labels-idx1-ubyte.gz", md5="d53e105ee54ea40749a09fcbcd1e9432"
    ),
    "test": Remote(
        "t10k-labels-idx1-ubyte.gz", URL + "t10k-labels-idx1-ubyte.gz", md5="ec29112dd5afa0611ce80d1b7f02629c"
    ),
}


class MNIST(ImageDataset):
    """70000 grey images of 28x28 with 256 levels in the published split."""

    name = "mnist"
    shape = (1, 28, 28)
    levels = 256
    counts: ClassVar[Mapping[Split, int]] = {"train": 60000, "test": 10000}
    source = f"{URL} (torchvision's mirror), published split"
    licence = "CC BY-SA 3.0"
    citation = "LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document recognition, 1998"
    bytes = 11_594_722

    def export(self, downloads: Downloads, scratch: Path) -> Mapping[Split, Path]:
        """Fetch the two image files and unpack them."""
        return write_idx_splits(FILES, downloads, scratch)

    def labels(self, downloads: Downloads) -> Labels:
        """Fetch the two label files."""
        return read_idx_labels(LABEL_FILES, DIGITS, downloads)


def write_idx_splits(files: Mapping[Split, Remote], downloads: Downloads, scratch: Path) -> Mapping[Split, Path]:
    """Fetch one IDX file of images per split, and write each to a `.npy` file in `scratch`."""
    paths: dict[Split, Path] = {}
    for split, remote in files.items():
        paths[split] = scratch / f"{split}.npy"
        write_npy(paths[split], read_idx(downloads.fetch(remote)))
    return paths


def read_idx_labels(files: Mapping[Split, Remote], names: list[str], downloads: Downloads) -> Labels:
    """Fetch one IDX file of labels per split, and return them with the names of their classes.

    Raises:
        DataError: a file cannot be had or is damaged, or it holds no labels of these classes.
    """
    parts: dict[Split, list[int]] = {}
    for split, remote in files.items():
        path = downloads.fetch(remote)
        labels = read_idx(path)
        if labels.ndim != 1 or labels.max(initial=0) >= len(names):
            raise DataError(f"{path} holds no labels below {len(names)} of one image each; delete it")
        parts[split] = labels.tolist()
    return Labels(names=names, **parts)
