"""Downsampled ImageNet, from either of the two forms in which it has been handed out."""

from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import ClassVar

from acf.data.download.downloads import Downloads
from acf.data.download.fetch import Remote
from acf.data.download.progress import shown
from acf.data.formats import archives, npz
from acf.data.formats.images import Target, decode
from acf.data.formats.npy import PIECE, NpyWriter
from acf.data.prepared.manifest import Split
from acf.data.sources.image_dataset import ImageDataset

HOW = (
    "the owner asks for a login at https://image-net.org/download-images, which has the .npz batches; the older "
    "archives of PNG files (van den Oord et al., arXiv 1601.06759) do as well. They hold nearly the same images, "
    "resized otherwise, so results on one are not to be compared with results on the other"
)


class DownsampledImageNet(ImageDataset):
    """1.28 million colour images, training and validation split of ImageNet 2012.

    Attributes:
        parts: names of the zip files with the training batches.
    """

    levels = 256
    counts: ClassVar[Mapping[Split, tuple[int, ...]]] = {"train": (1281149, 1281167), "test": (49999, 50000)}
    licence = "ImageNet terms of access, non-commercial research"
    citation = "van den Oord et al., arXiv 1601.06759; Chrabaszcz, Loshchilov, Hutter, arXiv 1707.08819"
    manual = True
    parts: ClassVar[tuple[str, ...]]

    def export(self, downloads: Downloads, scratch: Path) -> Mapping[Split, Path]:
        """Read the archives of PNG files or the `.npz` batches, whichever are present."""
        side = self.shape[1]
        pngs = [f"train_{side}x{side}.tar", f"valid_{side}x{side}.tar"]
        zips = [*self.parts, f"Imagenet{side}_val_npz.zip"]
        forms = {"PNG files": pngs, "npz batches": zips}
        form, files = downloads.by_hand({f: [Remote(name) for name in names] for f, names in forms.items()}, HOW)
        sources: dict[Split, list[Path]] = {"train": files[:-1], "test": files[-1:]}
        paths: dict[Split, Path] = {}
        for split, used in sources.items():
            paths[split] = scratch / f"{split}.npy"
            if form == "PNG files":
                pieces = decode(chain.from_iterable(map(archives.images, used)), Target(self.shape))
            else:
                pieces = chain.from_iterable(npz.batches(path, scratch, self.shape, PIECE) for path in used)
            with NpyWriter(paths[split], (side, side, 3)) as writer:
                for piece in shown(pieces, f"reading {split} images"):
                    writer.append(piece)
        return paths


class ImageNet32(DownsampledImageNet):
    """Downsampled ImageNet at 32x32."""

    name = "imagenet32"
    shape = (3, 32, 32)
    parts = ("Imagenet32_train_npz.zip",)
    source = "image-net.org, downsampled to 32x32; its validation images are the test split"
    bytes = 3_400_000_000


class ImageNet64(DownsampledImageNet):
    """Downsampled ImageNet at 64x64."""

    name = "imagenet64"
    shape = (3, 64, 64)
    parts = ("Imagenet64_train_part1_npz.zip", "Imagenet64_train_part2_npz.zip")
    source = "image-net.org, downsampled to 64x64; its validation images are the test split"
    bytes = 12_000_000_000
