"""CelebA-HQ (Karras et al., arXiv 1710.10196) in the two forms that flows are compared on."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np

from acf.data.download.downloads import Downloads
from acf.data.download.fetch import Remote
from acf.data.download.progress import counting
from acf.data.formats import archives, tfrecord
from acf.data.formats.npy import NpyWriter
from acf.data.prepared.manifest import Split
from acf.data.sources.arrays import write_split
from acf.data.sources.image_dataset import ImageDataset
from acf.data.sources.split import drawn
from acf.errors import DataError

ARRAY = Remote("celeba_full_64x64_5bit.npy")
HOW = "follow https://github.com/aravindsrinivas/flowpp, folder flows_celeba"
ARCHIVE = Remote(
    "celeba-tfr.tar",
    "https://storage.googleapis.com/glow-demo/data/celeba-tfr.tar",
    hint="another copy has been at https://openaipublic.azureedge.net/glow-demo/data/celeba-tfr.tar",
)
FOLDERS: dict[str, Split] = {"train": "train", "validation": "test"}


class CelebAHQ64(ImageDataset):
    """The array of the Flow++ authors, 5 bits. It has no test images of its own: a tenth is held out, seeded.

    The published code takes the first 5000 images as test images and trains on all, so that its test images are seen
    in training.
    """

    name = "celebahq64"
    shape = (3, 64, 64)
    levels = 32
    counts: ClassVar[Mapping[Split, None]] = {"train": None, "test": None}
    source = "github.com/aravindsrinivas/flowpp (flows_celeba), 5 bit; a tenth held out for testing, seed 0"
    licence = "CelebA terms, non-commercial research"
    citation = "Karras et al., arXiv 1710.10196; Ho et al., arXiv 1902.00275"
    bytes = 330_000_000
    manual = True

    def export(self, downloads: Downloads, scratch: Path) -> Mapping[Split, Path]:
        """Write the images of each split to a `.npy` file of its own."""
        _, (path,) = downloads.by_hand({"array": [ARRAY]}, HOW)
        return write_split(path, scratch, lambda count: drawn(count, 0.1))


class CelebAHQ256(ImageDataset):
    """Glow's TFRecords of 256x256 images, 8 bits; params.yaml has models see 5 of them."""

    name = "celebahq256"
    shape = (3, 256, 256)
    levels = 256
    counts: ClassVar[Mapping[Split, int]] = {"train": 27000, "test": 3000}
    source = f"{ARCHIVE.url} (Glow, arXiv 1807.03039), its validation split for testing"
    licence = "CelebA terms, non-commercial research"
    citation = "Karras et al., arXiv 1710.10196; Kingma and Dhariwal, arXiv 1807.03039"
    bytes = 5_900_000_000

    def export(self, downloads: Downloads, scratch: Path) -> Mapping[Split, Path]:
        """Fetch the archive and read its records without unpacking it."""
        path = downloads.fetch(ARCHIVE)
        paths: dict[Split, Path] = {split: scratch / f"{split}.npy" for split in FOLDERS.values()}
        side = self.shape[1]
        with (
            NpyWriter(paths["train"], (side, side, 3)) as train,
            NpyWriter(paths["test"], (side, side, 3)) as test,
            counting("reading records", sum(self.counts.values())) as advance,
        ):
            writers: dict[Split, NpyWriter] = {"train": train, "test": test}
            for split, image in _images(path, side):
                writers[split].append(image)
                advance(1)
        return paths


def _images(path: Path, side: int) -> Iterator[tuple[Split, np.ndarray]]:
    """Split and image (1, H, W, 3) of every record at full resolution."""
    with archives.opened(path) as archive:
        for member, content in archives.files(archive, path):
            name = PurePosixPath(member.name)
            if name.parent.name not in FOLDERS or name.suffix != ".tfrecords" or "-r08-" not in name.name:
                continue
            where = f"{path}: {member.name}"
            for index, record in enumerate(tfrecord.read_records(content, where)):
                values = tfrecord.feature(record, "data", f"{where}: record {index}")
                if len(values) != side * side * 3:
                    raise DataError(f"{where}: record {index} has {len(values)} bytes instead of {side * side * 3}")
                yield FOLDERS[name.parent.name], np.frombuffer(values, np.uint8).reshape(1, side, side, 3)
