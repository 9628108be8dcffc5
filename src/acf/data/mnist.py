"""MNIST (LeCun, Cortes and Burges)."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from acf.data.base import ImageDataset
from acf.data.downloads import Downloads
from acf.data.fetch import Remote
from acf.data.idx import write_splits
from acf.data.prepared.manifest import Split

URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FILES: dict[Split, Remote] = {  # MD5 as published by torchvision, whose mirror this is
    "train": Remote(
        "train-images-idx3-ubyte.gz", URL + "train-images-idx3-ubyte.gz", md5="f68b3c2dcbeaaa9fbdd348bbdeb94873"
    ),
    "test": Remote(
        "t10k-images-idx3-ubyte.gz", URL + "t10k-images-idx3-ubyte.gz", md5="9fb629c4189551a2d022fa330f9573f3"
    ),
}


class MNIST(ImageDataset):
    """70000 grey images of 28x28 with 256 levels in the published split; the label files are not needed."""

    name = "mnist"
    shape = (1, 28, 28)
    levels = 256
    counts: ClassVar[Mapping[Split, int]] = {"train": 60000, "test": 10000}
    source = f"{URL} (torchvision's mirror), published split"
    licence = "CC BY-SA 3.0"
    citation = "LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document recognition, 1998"
    bytes = 11_561_299

    def export(self, downloads: Downloads, scratch: Path) -> Mapping[Split, Path]:
        """Fetch the two image files and unpack them."""
        return write_splits(FILES, downloads, scratch)
