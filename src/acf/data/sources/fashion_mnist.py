"""Fashion-MNIST (Xiao, Rasul and Vollgraf, arXiv 1708.07747)."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from acf.data.download.downloads import Downloads
from acf.data.download.fetch import Remote
from acf.data.prepared.labels import Labels
from acf.data.prepared.manifest import Split
from acf.data.sources.image_dataset import ImageDataset
from acf.data.sources.mnist import read_idx_labels, write_idx_splits

HINT = "on Debian and Ubuntu: apt install dataset-fashion-mnist, then ACF_MIRROR=/usr/share/datasets"
URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"

# The checksums are of the uncompressed files. Zalando publishes MD5 sums of the gzip files (train
# 8d4fb7e6c68d591d4c3dfef9ec88bf0d, test bef4ecab320f06d8554ea6380940ec79), whose headers hold a name and a
# time; Debian's package dataset-fashion-mnist ships the same compressed streams under other headers. Both
# are right: with the original headers put back, Debian's files have the published sums
# (tests/data/test_fashion_mnist.py), which is how the content below is known to be Zalando's.
CONTENT = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
FILES: dict[Split, str] = {"train": "train-images-idx3-ubyte.gz", "test": "t10k-images-idx3-ubyte.gz"}
LABEL_FILES: dict[Split, str] = {"train": "train-labels-idx1-ubyte.gz", "test": "t10k-labels-idx1-ubyte.gz"}
NAMES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def remote(name: str) -> Remote:
    """Return where to fetch the file `name` and what it must hold."""
    return Remote(name=name, url=URL + name, sha256=CONTENT[name], gzipped=True, hint=HINT)


class FashionMNIST(ImageDataset):
    """70000 grey images of 28x28 with 256 levels in the published split."""

    name = "fashion-mnist"
    shape = (1, 28, 28)
    levels = 256
    counts: ClassVar[Mapping[Split, int]] = {"train": 60000, "test": 10000}
    sha256: ClassVar[Mapping[Split, str]] = {
        "train": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
        "test": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
    }
    source = f"{URL} (Zalando Research, MIT licence), published split"
    licence = "MIT"
    citation = "Xiao, Rasul, Vollgraf, arXiv 1708.07747"
    bytes = 30_878_645

    def export(self, downloads: Downloads, scratch: Path) -> Mapping[Split, Path]:
        """Fetch the two image files, from `ACF_MIRROR` if it has them, and unpack them into `scratch`."""
        return write_idx_splits({split: remote(name) for split, name in FILES.items()}, downloads, scratch)

    def labels(self, downloads: Downloads) -> Labels:
        """Fetch the two label files, from `ACF_MIRROR` if it has them."""
        return read_idx_labels({split: remote(name) for split, name in LABEL_FILES.items()}, NAMES, downloads)
