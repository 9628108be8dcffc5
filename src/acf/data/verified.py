"""Prepared data verified: whatever torch's reader raises on a damaged file becomes a `DataError`.

Verification is no part of a training, so that this file does not count for trained models as `prepared` does.
"""

from pathlib import Path
from pickle import UnpicklingError

from acf.data.prepared import tensors
from acf.data.prepared.manifest import ROOT, Manifest, prepare_hint
from acf.errors import AcfError, DataError


def verify(dataset: str, root: Path = ROOT) -> Manifest:
    """Check both splits as `load` does, their bytes and the labels by the manifest's hashes; return the manifest.

    A manifest of an earlier version, which knows of no labels, is checked without them.

    Raises:
        DataError: as `load`, or the content differs from what was prepared; names the file, or the folder where
            torch read a damaged file once and failed when it read it again.
    """
    try:
        return tensors.verify(dataset, root)
    except AcfError:
        raise
    except UnpicklingError:  # whose message advises to load it unsafely
        reason = "more than a tensor is in it"
    except Exception as error:  # a flipped bit can lead the reader to any kind of error, at any reading
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
    raise DataError(f"{Path(root) / dataset} is damaged ({reason}); {prepare_hint(dataset)}")
