"""Street View House Numbers, cropped digits (Netzer et al., 2011)."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from acf.data.download.downloads import Downloads
from acf.data.download.fetch import Remote
from acf.data.formats.npy import write_npy
from acf.data.prepared.labels import Labels
from acf.data.prepared.manifest import Split
from acf.data.sources.digits import DIGITS
from acf.data.sources.image_dataset import ImageDataset
from acf.errors import DataError

URL = "http://ufldl.stanford.edu/housenumbers/"
FILES: dict[Split, Remote] = {  # MD5 as in torchvision
    "train": Remote("train_32x32.mat", URL + "train_32x32.mat", md5="e26dedcc434d2e4c54c9b2d4a06d8373"),
    "test": Remote("test_32x32.mat", URL + "test_32x32.mat", md5="eb5a983be6a315427106f1b164d9cef3"),
}


class SVHN(ImageDataset):
    """99289 colour images of 32x32 with 256 levels in the published split, without the extra images."""

    name = "svhn"
    shape = (3, 32, 32)
    levels = 256
    counts: ClassVar[Mapping[Split, int]] = {"train": 73257, "test": 26032}
    source = f"{URL} (format 2), published split"
    licence = "non-commercial use"
    citation = "Netzer et al., Reading digits in natural images with unsupervised feature learning, 2011"
    bytes = 246_316_178

    def export(self, downloads: Downloads, scratch: Path) -> Mapping[Split, Path]:
        """Fetch the two MATLAB files and put images first."""
        paths: dict[Split, Path] = {}
        for split, remote in FILES.items():
            paths[split] = scratch / f"{split}.npy"
            write_npy(paths[split], np.moveaxis(_images(downloads.fetch(remote)), -1, 0))
        return paths

    def labels(self, downloads: Downloads) -> Labels:
        """Read the digits, of which 0 is stored as 10."""
        parts: dict[Split, list[int]] = {}
        for split, remote in FILES.items():
            path = downloads.fetch(remote)
            stored = _variable(path, "y").ravel()
            if not np.isin(stored, range(1, 11)).all():
                raise DataError(f"{path}: y has other values than 1 to 10; delete it")
            parts[split] = (stored.astype(int) % 10).tolist()
        return Labels(names=DIGITS, **parts)


def _images(path: Path) -> np.ndarray:
    """X (32, 32, 3, N) of a MATLAB file."""
    images = _variable(path, "X")
    if images.dtype != np.uint8 or images.ndim != 4:
        raise DataError(f"{path}: X is {images.dtype} {images.shape}; expected uint8 (32, 32, 3, N)")
    return images


def _variable(path: Path, name: str) -> np.ndarray:
    """The variable `name` of a MATLAB file."""
    from scipy.io import loadmat

    try:
        values: np.ndarray = loadmat(path, variable_names=[name])[name]
    except Exception as error:  # scipy lets a damaged file fail in any way
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise DataError(f"{path} is damaged or no MATLAB file with a variable {name}: {reason}; delete it") from None
    return values
