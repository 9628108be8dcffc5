"""Data sets of images."""

from typing import ClassVar

from acf.data.sources.dataset import Dataset


class ImageDataset(Dataset):
    """A data set of images with whole-numbered values, all of one size.

    Attributes:
        shape: (C, H, W) of one image.
        levels: number of values a pixel can take; values lie in [0, levels).
    """

    shape: ClassVar[tuple[int, int, int]]
    levels: ClassVar[int]
