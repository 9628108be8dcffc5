"""A folder of images: a data set of one's own, cut, resized and divided by a seed."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from acf.data.downloads import Downloads
from acf.data.images import Encoded, Target, decode
from acf.data.npy import NpyWriter
from acf.data.prepared.manifest import Split
from acf.data.progress import shown
from acf.data.split import Divided
from acf.errors import DataError

KINDS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


class ImageFolder(Divided):
    """Base of data sets from a folder, subfolders included: each image is cut to its middle and resized to `shape`.

    Attributes:
        folder: path; ~ is the home folder.
    """

    folder: ClassVar[str]
    levels = 256

    def export(self, downloads: Downloads, scratch: Path) -> Mapping[Split, Path]:
        """Decode all images, in the order of their paths."""
        folder = Path(self.folder).expanduser()
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in KINDS and path.is_file())
        if len(paths) < 2:
            raise DataError(f"{folder} has {len(paths)} images; {self.name} needs at least two, of {sorted(KINDS)}")
        written: dict[Split, Path] = {}
        channels, height, width = self.shape
        for split, indices in self.divide(len(paths)).items():
            written[split] = scratch / f"{split}.npy"
            with NpyWriter(written[split], (height, width, channels)) as writer:
                pieces = decode(_read([paths[i] for i in indices]), Target(self.shape, fit=True))
                for piece in shown(pieces, f"reading {split} images", len(indices)):
                    writer.append(piece)
        return written


def _read(paths: list[Path]) -> Iterator[Encoded]:
    for path in paths:
        try:
            yield str(path), path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from None
