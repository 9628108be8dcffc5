"""CIFAR-10 (Krizhevsky, 2009), from the binary version: nothing is unpickled."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np

from acf.data.download.downloads import Downloads
from acf.data.download.fetch import Remote
from acf.data.formats import archives
from acf.data.formats.npy import NpyWriter
from acf.data.prepared.labels import Labels
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
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
RECORD = 1 + 3 * 32 * 32  # label, then the red, green and blue values


class CIFAR10(ImageDataset):
    """60000 colour images of 32x32 with 256 levels in the published split."""

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
        paths: dict[Split, Path] = {}
        for split, batches in _splits(downloads.fetch(ARCHIVE)).items():
            paths[split] = scratch / f"{split}.npy"
            with NpyWriter(paths[split], (32, 32, 3)) as writer:
                for records in batches:
                    writer.append(np.moveaxis(records[:, 1:].reshape(-1, 3, 32, 32), 1, -1))
        return paths

    def labels(self, downloads: Downloads) -> Labels:
        """Read the batches again."""
        path = downloads.fetch(ARCHIVE)
        parts = {split: np.concatenate(batches)[:, 0] for split, batches in _splits(path).items()}
        if max(part.max(initial=0) for part in parts.values()) >= len(NAMES):
            raise DataError(f"{path} has labels beyond {len(NAMES) - 1}; delete it and fetch it again")
        return Labels(names=NAMES, **{split: part.tolist() for split, part in parts.items()})


def _splits(path: Path) -> dict[Split, list[np.ndarray]]:
    """Records of the batches of each split, in order."""
    batches = _batches(path)
    if missing := [name for names in BATCHES.values() for name in names if name not in batches]:
        raise DataError(f"{path} has no {missing[0]}; delete it and fetch it again")
    return {split: [batches[name] for name in names] for split, names in BATCHES.items()}


def _batches(path: Path) -> dict[str, np.ndarray]:
    """Records (N, 1 + 3 32 32) of each batch file, by its name."""
    found = {}
    with archives.opened(path) as archive:
        for member, content in archives.files(archive, path):
            if member.name.endswith("_batch.bin") or "data_batch_" in member.name:
                values = np.frombuffer(content.read(), np.uint8)
                if len(values) % RECORD:
                    raise DataError(f"{path}: {member.name} has {len(values)} bytes, no multiple of {RECORD}")
                found[PurePosixPath(member.name).name] = values.reshape(-1, RECORD)
    return found
