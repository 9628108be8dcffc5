"""CIFAR-10 (Krizhevsky, 2009), from the binary version: nothing is unpickled."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np

from acf.data.download.downloads import Downloads
from acf.data.download.fetch import Remote
from acf.data.formats import archives
from acf.data.formats.npy import NpyWriter
from acf.data.prepared.manifest import Split
from acf.data.sources.image_dataset import ImageDataset
from acf.errors import DataError

ARCHIVE = Remote(
    "cifar-10-binary.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    md5="c32a1d4ab5d03f1284b67883e8d87530",  # published beside the file
)
BATCHES: dict[Split, list[str]] = {
    "train": [f"data_batch_{i}.bin" for i in range(1, 6)],
    "test": ["test_batch.bin"],
}
RECORD = 1 + 3 * 32 * 32  # label, then the red, green and blue values


class CIFAR10(ImageDataset):
    """60000 colour images of 32x32 with 256 levels in the published split; labels are dropped."""

    name = "cifar10"
    shape = (3, 32, 32)
    levels = 256
    counts: ClassVar[Mapping[Split, int]] = {"train": 50000, "test": 10000}
    source = "https://www.cs.toronto.edu/~kriz/cifar.html (binary version), published split"
    licence = "none stated"
    citation = "Krizhevsky, Learning multiple layers of features from tiny images, 2009"
    bytes = 170_052_171

    def export(self, downloads: Downloads, scratch: Path) -> Mapping[Split, Path]:
        """Fetch the archive and read its batches."""
        path = downloads.fetch(ARCHIVE)
        batches = _batches(path)
        paths: dict[Split, Path] = {}
        for split, names in BATCHES.items():
            paths[split] = scratch / f"{split}.npy"
            with NpyWriter(paths[split], (32, 32, 3)) as writer:
                for name in names:
                    if name not in batches:
                        raise DataError(f"{path} has no {name}; delete it and fetch it again")
                    writer.append(batches[name])
        return paths


def _batches(path: Path) -> dict[str, np.ndarray]:
    """Images (N, 32, 32, 3) of each batch file, by its name."""
    found = {}
    with archives.opened(path) as archive:
        for member, content in archives.files(archive, path):
            if member.name.endswith("_batch.bin") or "data_batch_" in member.name:
                values = np.frombuffer(content.read(), np.uint8)
                if len(values) % RECORD:
                    raise DataError(f"{path}: {member.name} has {len(values)} bytes, no multiple of {RECORD}")
                images = values.reshape(-1, RECORD)[:, 1:].reshape(-1, 3, 32, 32)
                found[PurePosixPath(member.name).name] = np.moveaxis(images, 1, -1)
    return found
