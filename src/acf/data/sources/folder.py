"""A folder of images: a data set of one's own, cut, resized and divided by a seed."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from acf.data.download.downloads import Downloads
from acf.data.download.progress import shown
from acf.data.formats.images import Encoded, Target, decode
from acf.data.formats.npy import NpyWriter
from acf.data.prepared.labels import Labels
from acf.data.prepared.manifest import SPLITS, Split
from acf.data.sources.file_search import find_files
from acf.data.sources.image_dataset import ImageDataset
from acf.data.sources.split import Divided
from acf.errors import DataError
from acf.extras import needed_by


class ImageFolder(Divided, ImageDataset):
    """Base of data sets from a folder, subfolders included: each image is cut to its middle and resized to `shape`.

    Links are followed; a file or folder that two of them lead to is read once, since copies of a training image among
    the test images would make results look better than they are. Hidden files and folders are left out, and so are
    files with endings of no image format. What is left out is printed. Images are turned as their EXIF data say;
    transparency is dropped; of several frames the first counts.

    Attributes:
        folder: path; ~ is the home folder.
        labelled: whether the subfolders of `folder` are classes, whose names are the labels of all images below them.
    """

    folder: ClassVar[str]
    labelled: ClassVar[bool] = False
    levels = 256

    def export(self, downloads: Downloads, scratch: Path) -> Mapping[Split, Path]:
        """Decode all images, in the order of their paths.

        Raises:
            DataError: the folder is missing, has fewer than two images or a part that cannot be read, or an image is
                damaged; names it.
        """
        folder = self._place()
        paths, left_out = _images(folder)
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

    def labels(self, downloads: Downloads) -> Labels:
        """Return the names of the subfolders as classes, if the images are `labelled`.

        Raises:
            DataError: an image lies in no subfolder; names it.
        """
        if not self.labelled:
            return Labels()
        folder = self._place()
        paths, _ = _images(folder)
        places = [path.relative_to(folder).parts for path in paths]
        if outside := [path for path, place in zip(paths, places, strict=True) if len(place) == 1]:
            raise DataError(
                f"{outside[0]} lies in no subfolder of {folder}, and so has no label; put it into one, or set "
                f"`labelled` of the class of {self.name} to False"
            )
        names = sorted({place[0] for place in places})
        chosen = self.divide(len(paths))
        parts = {split: [names.index(places[i][0]) for i in chosen[split]] for split in SPLITS}
        return Labels(names=names, **parts)

    def _place(self) -> Path:
        return Path(self.folder).expanduser()


def _images(folder: Path) -> tuple[list[Path], str]:
    """Return the images in a folder, in the order of their paths, and what was left out, in words."""
    kinds = _kinds()
    found = find_files(folder)
    paths = sorted(path for path in found.files if path.suffix.lower() in kinds)
    found.left_out["files with other endings"] = len(found.files) - len(paths)
    return paths, ", ".join(f"{number} {what}" for what, number in found.left_out.items() if number)


def _kinds() -> set[str]:
    """Endings of the formats that can be read as images."""
    with needed_by("a folder of images"):
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
