"""A folder of images: a data set of one's own, cut, resized and divided by a seed."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from acf.data.download.downloads import Downloads
from acf.data.download.progress import shown
from acf.data.formats.images import Encoded, Target, decode
from acf.data.formats.npy import NpyWriter
from acf.data.prepared.manifest import Split
from acf.data.sources.file_search import find_files
from acf.data.sources.split import Divided
from acf.errors import DataError


class ImageFolder(Divided):
    """Base of data sets from a folder, subfolders included: each image is cut to its middle and resized to `shape`.

    Links are followed; a file or folder that two of them lead to is read once, since copies of a training image among
    the test images would make results look better than they are. Hidden files and folders are left out, and so are
    files with endings of no image format. What is left out is printed. Images are turned as their EXIF data say;
    transparency is dropped; of several frames the first counts.

    Attributes:
        folder: path; ~ is the home folder.
    """

    folder: ClassVar[str]
    levels = 256

    def export(self, downloads: Downloads, scratch: Path) -> Mapping[Split, Path]:
        """Decode all images, in the order of their paths.

        Raises:
            DataError: the folder is missing, has fewer than two images or a part that cannot be read, or an image is
                damaged; names it.
        """
        folder = Path(self.folder).expanduser()
        kinds = _kinds()
        found = find_files(folder)
        paths = sorted(path for path in found.files if path.suffix.lower() in kinds)
        found.left_out["files with other endings"] = len(found.files) - len(paths)
        left_out = ", ".join(f"{number} {what}" for what, number in found.left_out.items() if number)
        if len(paths) < 2:
            aside = f" (left out: {left_out})" if left_out else ""
            raise DataError(
                f"{folder} has {len(paths)} images{aside}; {self.name} needs at least two, with endings such as .png: "
                "put them there"
            )
        if left_out:
            print(f"{folder}: left out: {left_out}")
        written: dict[Split, Path] = {}
        channels, height, width = self.shape
        for split, indices in self.divide(len(paths)).items():
            written[split] = scratch / f"{split}.npy"
            with NpyWriter(written[split], (height, width, channels)) as writer:
                pieces = decode(_read([paths[i] for i in indices]), Target(self.shape, fit=True))
                for piece in shown(pieces, f"reading {split} images", len(indices)):
                    writer.append(piece)
        return written


def _kinds() -> set[str]:
    """Endings of the formats that can be read as images."""
    from PIL import Image

    no_pictures = {"PDF", "EPS", "WMF", "MPEG", "HDF5", "GRIB", "BUFR", "FITS"}
    return {
        ending
        for ending, kind in Image.registered_extensions().items()
        if kind in Image.OPEN and kind not in no_pictures
    }


def _read(paths: list[Path]) -> Iterator[Encoded]:
    for path in paths:
        try:
            yield str(path), path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from None
