"""Patches of the two photographs that come with scikit-learn: colour images small enough for a laptop."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import ClassVar

import numpy as np

from acf.data.download.downloads import Downloads
from acf.data.formats.npy import write_npy
from acf.data.prepared.labels import Labels
from acf.data.prepared.manifest import SPLITS, Split
from acf.data.sources.image_dataset import ImageDataset
from acf.extras import needed_by

NEEDS = "the data set patches"
NAMES = ["china", "flower"]
HEIGHT, WIDTH = 427, 640
SIDE = 16
PERIOD = 320
"""Columns after which the division of a photograph into regions repeats."""
TRAIN_COLUMNS, TEST_COLUMNS = (0, 160), (176, 304)
"""Of each period, from and below; 16 columns on either side of a test region belong to neither split.

All are multiples of 8, so that no block of JPEG has pixels of both splits either.
"""
TRAIN = 5000
"""Training patches of each photograph."""
SEED = 0


class Patches(ImageDataset):
    """10832 colour patches of 16x16 with 256 levels, of two photographs of 427x640, each divided by columns.

    Of every 320 columns the first 160 are for training and columns 176 to 303 for testing, so that no pixel is in both
    and 16 columns lie between them. The 10000 training patches, 5000 of each photograph, are drawn with a fixed seed
    without replacement from all 119480 places of a photograph; they overlap, and a training pixel is in 9 of them on
    average. The 832 test patches are all that fit into the test regions side by side: they do not overlap.

    This is a toy of colour, and no sample of natural images: what is measured holds for these two photographs. Standard
    errors take test patches as independent, but patches side by side are alike, so they are too small, more of means
    than of paired differences. What is held out of the training patches for validation overlaps those that are trained
    on; the test patches do not.
    """

    name = "patches"
    shape = (3, SIDE, SIDE)
    levels = 256
    counts: ClassVar[Mapping[Split, int]] = {"train": 10000, "test": 832}
    # JPEG leaves decoders some freedom: should one give other pixels, `acf prepare` refuses.
    sha256: ClassVar[Mapping[Split, str]] = {
        "train": "d4e95c6af39498811d1b506f277e3d11440527392697c8f020835818319c2477",
        "test": "7feeb026078e2c3e84f8e712549f104247def51e40a10df808350067c57c62d1",
    }
    source = "scikit-learn load_sample_images (china.jpg, flower.jpg), patches of disjoint columns, seed 0"
    licence = "CC BY 2.0"
    citation = "Photographs by danielbuechele and vultilion on Flickr, as scikit-learn hands them out"
    remark = (
        "Patches of two photographs are a toy of colour and no sample of natural images. Test patches share no pixel "
        "with each other or with training patches, but patches side by side are alike, so that standard errors, which "
        "take them as independent, are too small. Validation patches overlap training patches."
    )
    bytes = 0

    def export(self, downloads: Downloads, scratch: Path) -> Mapping[Split, Path]:
        """Write both splits into `scratch`; nothing is fetched."""
        with needed_by(NEEDS):
            import_module("PIL.Image")  # with which scikit-learn reads pictures; its own message names no extra
            from sklearn.datasets import load_sample_image

        photographs = np.stack([load_sample_image(f"{name}.jpg") for name in NAMES])
        paths: dict[Split, Path] = {}
        for split in SPLITS:
            paths[split] = scratch / f"{split}.npy"
            write_npy(paths[split], cut(photographs, places(split)))
        return paths

    def labels(self, downloads: Downloads) -> Labels:
        """Return which photograph each patch is of."""
        parts = {split: places(split)[:, 0].tolist() for split in SPLITS}
        return Labels(names=NAMES, **parts)


def places(split: Split) -> np.ndarray:
    """Return photograph, row and column of the upper left pixel of each patch, (N, 3), in the order of the split.

    The order is drawn with the seed, so that the first n patches are of both photographs and from all over them.
    """
    first, end = TRAIN_COLUMNS if split == "train" else TEST_COLUMNS
    step = 1 if split == "train" else SIDE
    columns = [start + column for start in range(0, WIDTH, PERIOD) for column in range(first, end - SIDE + 1, step)]
    grid = np.stack(np.meshgrid(range(0, HEIGHT - SIDE + 1, step), columns, indexing="ij"), axis=-1).reshape(-1, 2)
    draw = np.random.Generator(np.random.PCG64(SEED))
    chosen = []
    for number in range(len(NAMES)):
        taken = draw.permutation(len(grid))[: TRAIN if split == "train" else len(grid)]
        chosen.append(np.column_stack([np.full(len(taken), number), grid[taken]]))
    return draw.permutation(np.concatenate(chosen))


def cut(photographs: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Return the patches (N, side, side, 3) of photographs (P, H, W, 3) at the places of `places`."""
    windows = np.lib.stride_tricks.sliding_window_view(photographs, (SIDE, SIDE), axis=(1, 2))
    number, row, column = where.T
    return np.moveaxis(windows[number, row, column], 1, -1)
