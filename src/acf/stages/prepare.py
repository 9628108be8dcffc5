"""The stage `prepare`: from a data set's source to `data/<dataset>/{train,test}.pth` and its manifest."""

import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from acf.data.download.downloads import DOWNLOADS, HASHES, Downloads
from acf.data.formats.convert import npy_to_pth
from acf.data.prepared.manifest import ROOT, SPLITS, Manifest, Split, manifest_path
from acf.data.prepared.tensors import tensor_path, verify
from acf.data.sources.image_dataset import ImageDataset
from acf.data.sources.registered import dataset_source
from acf.errors import DataError
from acf.runs.files import replacing, writing
from acf.runs.recipe import code_hashes
from acf.stages.code_notes import note_code
from acf.stages.conversions import note_conversion


def prepare(dataset: str, root: Path = ROOT) -> Manifest:
    """Make `root/<dataset>/{train,test}.pth` and `manifest.json`, unless they are there and whole.

    Fetched files are kept in `root/.downloads/<dataset>/`. The manifest is written last, so its presence says
    that the tensors are complete. A second process preparing the same data set waits for the first.

    Raises:
        ConfigError: unknown data set, or its class cannot be used.
        DataError: its source is missing or damaged, or a file cannot be written.
    """
    source = dataset_source(dataset)
    root = Path(root)
    # Before the lock, since prepared data may lie where nothing can be written.
    if manifest := _present(source, root):
        return manifest
    downloads = root / DOWNLOADS / dataset
    with _only_one(downloads / "lock", dataset) as waited:
        if waited and (manifest := _present(source, root)):
            return manifest
        hashes = code_hashes("prepare")
        note_code("prepare", hashes, root.parent)
        manifest = _prepare(source, downloads, root)
        note_conversion(dataset, root, hashes)
        return manifest


@contextmanager
def _only_one(path: Path, dataset: str) -> Iterator[bool]:
    """Hold the lock `path`, which a killed process gives back; yields whether another held it before."""
    lock = FileLock(path)
    waited = False
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"waiting for another `acf prepare --dataset {dataset}` to finish", flush=True)
            waited = True
            lock.acquire()
    try:
        yield waited
    finally:
        lock.release()


def _present(source: ImageDataset, root: Path) -> Manifest | None:
    """Return the manifest if all three files are there, whole, and what the code would write today."""
    if not manifest_path(source.name, root).exists():
        return None
    try:
        manifest = verify(source.name, root)
    except DataError as error:
        print(f"{error.args[0].partition('; run')[0]}: preparing again")
        return None
    if not describes(source, manifest):
        print(f"{manifest_path(source.name, root)} is of another version of the data set: preparing again")
        return None
    print(f"{root / source.name}: already prepared, content verified")
    return manifest


def describes(source: ImageDataset, manifest: Manifest) -> bool:
    """Whether a manifest is one that the class of its data set could have today."""
    return manifest == _manifest(source, source.sha256 or manifest.sha256, manifest.counts) and _possible(
        source, manifest.counts
    )


def _prepare(source: ImageDataset, downloads: Path, root: Path) -> Manifest:
    scratch = downloads / "npy"
    with writing(scratch):
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
    with writing(manifest_path(source.name, root)):
        # An old manifest must not vouch for new tensors.
        manifest_path(source.name, root).unlink(missing_ok=True)
    files = Downloads(source.name, downloads, root.parent / HASHES)
    try:
        arrays = source.export(files, scratch)
        hashes: dict[Split, str] = {}
        counts: dict[Split, int] = {}
        for split in SPLITS:
            path = tensor_path(source.name, split, root)
            hashes[split], counts[split] = npy_to_pth(
                arrays[split],
                path,
                shape=source.shape,
                levels=source.levels,
                count=source.counts[split],
                origin=f"array of {split} images from {', '.join(map(str, files.used)) or source.source}",
            )
            if source.sha256 and hashes[split] != source.sha256[split]:
                raise DataError(
                    f"{path}: SHA-256 of the images made from {source.source} is {hashes[split]}, expected "
                    f"{source.sha256[split]}; results would not be comparable, so the data set is not used"
                )
            arrays[split].unlink()
            print(f"wrote {path}: {counts[split]} images, {source.shape}, {source.levels} levels")
    except DataError as error:
        raise files.blame(error) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    files.record()
    manifest = _manifest(source, hashes, counts)
    with replacing(manifest_path(source.name, root)) as file:
        file.write(manifest.model_dump_json(indent=2).encode() + b"\n")
    print(f"wrote {manifest_path(source.name, root)}")
    return manifest


def _possible(source: ImageDataset, counts: Mapping[Split, int]) -> bool:
    """Whether the data set can have these numbers of images."""
    for split, wanted in source.counts.items():
        if wanted is not None and counts[split] not in ((wanted,) if isinstance(wanted, int) else wanted):
            return False
    return True


def _manifest(source: ImageDataset, hashes: Mapping[Split, str], counts: Mapping[Split, int]) -> Manifest:
    return Manifest(
        dataset=source.name,
        shape=source.shape,
        levels=source.levels,
        bits=math.log2(source.levels),
        counts=dict(counts),
        sha256=dict(hashes),
        source=source.source,
    )
