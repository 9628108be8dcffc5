"""The handwritten digits that come with scikit-learn, small enough for a whole study on a laptop."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from acf.data.download.downloads import Downloads
from acf.data.formats.npy import write_npy
from acf.data.prepared.labels import Labels
from acf.data.prepared.manifest import Split
from acf.data.sources.image_dataset import ImageDataset
from acf.extras import needed_by

SPLIT_SEED = 0
NEEDS = "the data set digits"
DIGITS = [str(digit) for digit in range(10)]


class Digits(ImageDataset):
    """1797 images of 8x8 with 17 grey levels (the UCI test set of optical digits), split 1500 to 297.

    The split is stratified by digit and drawn with a fixed seed. Its shuffled order is kept:
    neighbours in the source tend to be by one writer, so the first n images would otherwise be by a few writers.
    """

    name = "digits"
    shape = (1, 8, 8)
    levels = 17
    counts: ClassVar[Mapping[Split, int]] = {"train": 1500, "test": 297}
    # The split is scikit-learn's to draw: should a version of it draw another, `acf prepare` refuses.
    sha256: ClassVar[Mapping[Split, str]] = {
        "train": "c27a7f962708cae9edee7f95ef87fb6e339fd97063cadc5d8404f406a61043ab",
        "test": "4a5af014b67bc9c16d822c556f8fef8d6b41101cf8075dc5f82af40c6625a786",
    }
    source = "scikit-learn load_digits (UCI optical recognition of handwritten digits), stratified split, seed 0"
    licence = "CC BY 4.0"
    citation = "Alpaydin, Kaynak, Optical recognition of handwritten digits, UCI, 1998"
    bytes = 0

    def export(self, downloads: Downloads, scratch: Path) -> Mapping[Split, Path]:
        """Write both splits into `scratch`; nothing is fetched."""
        digits = _bundled()
        images = digits.images.astype(np.uint8)
        paths: dict[Split, Path] = {}
        for split, indices in split_indices(digits.target).items():
            paths[split] = scratch / f"{split}.npy"
            write_npy(paths[split], images[indices])
        return paths

    def labels(self, downloads: Downloads) -> Labels:
        """Return the digits, in the order of the split."""
        target = _bundled().target
        parts = {split: target[indices].tolist() for split, indices in split_indices(target).items()}
        return Labels(names=DIGITS, **parts)


def _bundled() -> Any:
    """Return the images and digits that scikit-learn brings along."""
    with needed_by(NEEDS):
        from sklearn.datasets import load_digits
    return load_digits()


def split_indices(labels: np.ndarray) -> dict[Split, np.ndarray]:
    """Return the indices of the training and the test images, disjoint and together all of `labels` (N,)."""
    with needed_by(NEEDS):
        from sklearn.model_selection import train_test_split

    train, test = train_test_split(
        np.arange(len(labels)),
        test_size=Digits.counts["test"],
        random_state=SPLIT_SEED,
        shuffle=True,
        stratify=labels,
    )
    return {"train": train, "test": test}
