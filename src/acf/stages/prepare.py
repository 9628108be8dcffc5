"""The stage `prepare`: from a data set's source to `data/<dataset>/{train,test}.pth`, its labels and its manifest."""

import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from acf.data.download.downloads import DOWNLOADS, HASHES, Downloads
from acf.data.formats.convert import npy_to_pth
from acf.data.formats.standardise import columns_of, npy_to_vectors
from acf.data.prepared.labels import Labels, labels_hash, labels_path
from acf.data.prepared.manifest import ROOT, SPLITS, Column, Manifest, Split, manifest_path
from acf.data.prepared.tensors import tensor_path
from acf.data.sources.dataset import Dataset
from acf.data.sources.registered import dataset_source
from acf.data.sources.table import Table
from acf.data.verified import verify
from acf.errors import DataError
from acf.runs.files import replacing, writing
from acf.runs.recipe import code_hashes
from acf.stages.code_notes import note_code
from acf.stages.conversions import note_conversion


def prepare(dataset: str, root: Path = ROOT) -> Manifest:
    """Make `root/<dataset>/{train,test}.pth`, `labels.json` and `manifest.json`, unless they are there and whole.

    Fetched files are kept in `root/.downloads/<dataset>/`. The manifest is written last, so its presence says
    that the tensors and labels are complete. A second process preparing the same data set waits for the first.
    What an earlier version has prepared, without labels, stays in place until the source has been read again.

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


def _present(source: Dataset, root: Path) -> Manifest | None:
    """Return the manifest if all files are there, whole, and what the code would write today."""
    if not manifest_path(source.name, root).exists():
        return None
    try:
        manifest = verify(source.name, root)
    except DataError as error:
        print(f"{error.args[0].partition('; run')[0]}: preparing again")
        return None
    if without_labels(source, manifest):
        print(f"{root / source.name} was prepared by an earlier version, which kept no labels: preparing again")
        return None
    if not describes(source, manifest):
        print(f"{manifest_path(source.name, root)} is of another version of the data set: preparing again")
        return None
    print(f"{root / source.name}: already prepared, content verified")
    return manifest


def describes(source: Dataset, manifest: Manifest) -> bool:
    """Whether a manifest is one that the class of its data set could have today."""
    if isinstance(source, Table) == manifest.is_of_images:
        return False
    hashes = source.sha256 or manifest.sha256
    expected = _manifest(source, manifest.columns, hashes, manifest.counts, manifest.labels)
    return manifest.labels is not None and manifest == expected and _possible(source, manifest.counts)


def without_labels(source: Dataset, manifest: Manifest) -> bool:
    """Whether a manifest lacks nothing but the labels, which earlier versions did not keep."""
    return manifest.labels is None and describes(source, manifest.model_copy(update={"labels": "0" * 64}))


def _prepare(source: Dataset, downloads: Path, root: Path) -> Manifest:
    scratch = downloads / "npy"
    with writing(scratch):
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
    files = Downloads(source.name, downloads, root.parent / HASHES)
    if not _serves(source, root):
        _withdraw(source, root)
    try:
        arrays = source.export(files, scratch)
        origin = ", ".join(map(str, files.used)) or source.source
        labels = source.labels(files)
        # An old manifest must not vouch for new tensors.
        _withdraw(source, root)
        columns = None
        if isinstance(source, Table):
            columns = columns_of(arrays["train"], source.names, f"training rows of {origin}")
        hashes, counts = _convert(source, columns, arrays, origin, root)
        manifest = _manifest(source, columns, hashes, counts, labels_hash(labels.content()))
        if fault := labels.fault(manifest):
            raise DataError(f"the source of {source.name} has {fault}; its class does not read it rightly")
    except DataError as error:
        raise files.blame(error) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    files.record()
    _write_labels(labels, labels_path(source.name, root))
    with replacing(manifest_path(source.name, root)) as file:
        file.write(manifest.content())
    print(f"wrote {manifest_path(source.name, root)}")
    return manifest


def _convert(
    source: Dataset, columns: list[Column] | None, arrays: Mapping[Split, Path], origin: str, root: Path
) -> tuple[dict[Split, str], dict[Split, int]]:
    """Write the tensors, remove the arrays they are made of, and return hashes and numbers of samples."""
    hashes: dict[Split, str] = {}
    counts: dict[Split, int] = {}
    for split in SPLITS:
        path = tensor_path(source.name, split, root)
        if columns is not None:
            hashes[split], counts[split] = npy_to_vectors(arrays[split], path, columns, f"{split} rows of {origin}")
            what = f"rows of {len(columns)} columns, standardised"
        else:
            shape, levels = _of_images(source)
            hashes[split], counts[split] = npy_to_pth(
                arrays[split],
                path,
                shape=shape,
                levels=levels,
                count=source.counts[split],
                origin=f"array of {split} images from {origin}",
            )
            what = f"images, {shape}, {levels} levels"
        if source.sha256 and hashes[split] != source.sha256[split]:
            raise DataError(
                f"{path}: SHA-256 of the images made from {source.source} is {hashes[split]}, expected "
                f"{source.sha256[split]}; results would not be comparable, so the data set is not used"
            )
        arrays[split].unlink()
        print(f"wrote {path}: {counts[split]} {what}")
    return hashes, counts


def _of_images(source: Dataset) -> tuple[tuple[int, int, int], int]:
    """Return shape and levels of a data set of images."""
    assert source.shape is not None
    assert source.levels is not None
    return source.shape, source.levels


def _serves(source: Dataset, root: Path) -> bool:
    """Whether prepared data that lack nothing but labels are in place, which serve all that needs none."""
    try:
        return without_labels(source, verify(source.name, root))
    except DataError:
        return False


def _withdraw(source: Dataset, root: Path) -> None:
    """Remove the manifest, which vouches for the tensors, and the labels."""
    for path in (manifest_path(source.name, root), labels_path(source.name, root)):
        with writing(path):
            path.unlink(missing_ok=True)


def _write_labels(labels: Labels, path: Path) -> None:
    with replacing(path) as file:
        file.write(labels.content())
    if labels.train is None:
        print(f"wrote {path}: the source has no labels")
    else:
        print(f"wrote {path}: {len(set(labels.train))} classes")


def _possible(source: Dataset, counts: Mapping[Split, int]) -> bool:
    """Whether the data set can have these numbers of samples."""
    for split, wanted in source.counts.items():
        if wanted is not None and counts[split] not in ((wanted,) if isinstance(wanted, int) else wanted):
            return False
    return True


def _manifest(
    source: Dataset,
    columns: list[Column] | None,
    hashes: Mapping[Split, str],
    counts: Mapping[Split, int],
    labels: str | None,
) -> Manifest:
    shape, levels = ((len(columns),), None) if columns is not None else _of_images(source)
    return Manifest(
        dataset=source.name,
        shape=shape,
        levels=levels,
        bits=None if levels is None else math.log2(levels),
        columns=columns,
        counts=dict(counts),
        sha256=dict(hashes),
        labels=labels,
        source=source.source,
    )
