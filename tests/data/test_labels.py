"""Labels of prepared images: whose they are, where they come from, and what happens to those that are missing."""

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from acf.data import load, read_manifest, verify
from acf.data.prepared.labels import Labels, kept_labels, read_labels
from acf.data.sources.arrays import ArrayFile
from acf.data.sources.folder import ImageFolder
from acf.data.sources.registered import dataset_source
from acf.errors import DataError
from acf.stages.prepare import describes, prepare
from tests.data.sources import CASES, classes, flip, png, random_images, written

NONE = {"names": None, "train": None, "test": None}


def test_labels_of_digits_are_those_of_the_images(tmp_path: Path) -> None:
    """Each image of the source is looked up by its pixels: whatever the order of the split, its label went with it."""
    prepare("digits", tmp_path)
    labels, digits = read_labels("digits", tmp_path), load_digits()
    digit_of = {
        image.astype(np.uint8).tobytes(): digit for image, digit in zip(digits.images, digits.target, strict=True)
    }
    assert len(digit_of) == len(digits.images)
    assert labels.names == [str(digit) for digit in range(10)]
    for split in ("train", "test"):
        images = load("digits", split, tmp_path)[:].numpy()
        assert getattr(labels, split) == [digit_of[image.tobytes()] for image in images]


@pytest.mark.parametrize("name", ["mnist", "cifar10", "svhn"])
def test_labels_arrive_with_their_images(name: str, project: Path) -> None:
    written(name, project)
    prepare(name, project / "data")
    labels = read_labels(name, project / "data")
    assert labels.names is not None
    assert len(labels.names) == 10
    for split, images in CASES[name].images.items():
        assert getattr(labels, split) == classes(images).tolist()


@pytest.mark.parametrize("name", ["celebahq64", "imagenet64"])
def test_a_source_without_labels_says_so(name: str, project: Path) -> None:
    written(name, project)
    prepare(name, project / "data")
    assert json.loads((project / "data" / name / "labels.json").read_text()) == NONE
    assert read_labels(name, project / "data") == Labels()


@pytest.mark.parametrize("harm", ["flipped", "removed", "of other images"])
def test_damage_is_noticed(harm: str, project: Path) -> None:
    written("mnist", project)
    prepare("mnist", project / "data")
    path = project / "data/mnist/labels.json"
    if harm == "flipped":
        flip(path)
    elif harm == "removed":
        path.unlink()
    else:
        path.write_bytes(Labels(train=[0] * 6, test=[0] * 3).content())
    for look in (verify, read_labels):
        with pytest.raises(DataError, match=r"labels\.json (is damaged|not found).*run: acf prepare --dataset mnist"):
            look("mnist", project / "data")


def forget_labels(folder: Path) -> None:
    """Turn prepared data into those of the version that kept no labels."""
    (folder / "labels.json").unlink()
    content = json.loads((folder / "manifest.json").read_text())
    del content["labels"]
    (folder / "manifest.json").write_text(json.dumps(content, indent=2) + "\n")


def test_data_of_an_earlier_version_serve_until_they_are_prepared_again(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = written("mnist", project)
    prepare("mnist", project / "data")
    place = project / "data/mnist"
    whole = {path.name: path.read_bytes() for path in place.iterdir()}
    forget_labels(place)
    images = load("mnist", "train", project / "data")[:]
    assert np.array_equal(images.numpy(), CASES["mnist"].images["train"])
    assert verify("mnist", project / "data") == read_manifest("mnist", project / "data")
    for ask in (lambda: read_labels("mnist", project / "data"), lambda: kept_labels(verify("mnist", project / "data"))):
        with pytest.raises(DataError, match="earlier version, which kept no labels; run: acf prepare --dataset mnist"):
            ask()
    assert not describes(dataset_source("mnist"), read_manifest("mnist", project / "data"))
    # The labels cannot be had: an error, and what is there still serves.
    labels = folder / "train-labels-idx1-ubyte.gz"
    labels.rename(folder / "away")
    labels.write_bytes(b"no gzip file")
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz"):
        prepare("mnist", project / "data")
    assert np.array_equal(load("mnist", "train", project / "data")[:].numpy(), images.numpy())
    (folder / "away").rename(labels)
    capsys.readouterr()
    prepare("mnist", project / "data")
    assert "prepared by an earlier version, which kept no labels: preparing again" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in place.iterdir()} == whole


def test_damaged_data_of_an_earlier_version_do_not_stay(project: Path) -> None:
    folder = written("mnist", project)
    prepare("mnist", project / "data")
    forget_labels(project / "data/mnist")
    flip(project / "data/mnist/train.pth")
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"no gzip file")
    with pytest.raises(DataError):
        prepare("mnist", project / "data")
    assert not (project / "data/mnist/manifest.json").exists()


def test_labels_of_another_number_are_refused(project: Path) -> None:
    folder = written("mnist", project)
    content = struct.pack(">HBBI", 0, 8, 1, 2) + bytes([1, 2])
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match="2 labels for 3 test images"):
        prepare("mnist", project / "data")
    assert not (project / "data/mnist/manifest.json").exists()


def test_names_of_folders_are_labels(project: Path, own: Callable[[type], None]) -> None:
    images = np.moveaxis(random_images(20, 1, (3, 8, 8))["train"], 1, -1)
    for i, image in enumerate(images):
        path = project / "animals" / ("dogs", "cats/young")[i % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(image))

    class Animals(ImageFolder):
        name, shape, folder, source = "own", (3, 8, 8), str(project / "animals"), "made by the test"
        labelled = True

    own(Animals)
    prepare("own", project / "data")
    labels = read_labels("own", project / "data")
    assert labels.names == ["cats", "dogs"]
    name_of = {np.moveaxis(image, -1, 0).tobytes(): ("dogs", "cats")[i % 2] for i, image in enumerate(images)}
    for split in ("train", "test"):
        arrived = load("own", split, project / "data")[:].numpy()
        assert [labels.names[label] for label in getattr(labels, split)] == [name_of[x.tobytes()] for x in arrived]
    (project / "animals/stray.png").write_bytes(png(images[0]))
    with pytest.raises(DataError, match=r"stray\.png lies in no subfolder"):
        prepare("own", project / "again")


def test_labels_of_an_array(project: Path, own: Callable[[type], None]) -> None:
    images = random_images(20, 1, (1, 6, 4))["train"]
    np.save(project / "own.npy", images[:, 0])
    np.save(project / "labels.npy", classes(images))

    class Array(ArrayFile):
        name, shape, array, source = "own", (1, 6, 4), str(project / "own.npy"), "made by the test"
        label_array = str(project / "labels.npy")

    own(Array)
    prepare("own", project / "data")
    labels = read_labels("own", project / "data")
    assert labels.names is None
    for split in ("train", "test"):
        assert getattr(labels, split) == classes(load("own", split, project / "data")[:].numpy()).tolist()
    for wrong in (np.zeros(19, int), np.zeros(20), np.full(20, -1), np.array(["a"] * 20, dtype=object)):
        np.save(project / "labels.npy", wrong)
        with pytest.raises(DataError, match=r"labels\.npy"):
            prepare("own", project / "again")
    (project / "labels.npy").unlink()
    with pytest.raises(DataError, match=r"labels\.npy not found; mend `label_array`"):
        prepare("own", project / "again")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"names": None, "train": [0], "test": None}, "the other has none"),
        ({"names": ["a"], "train": None, "test": None}, "there are no labels"),
        ({"names": ["a"], "train": [0], "test": [1]}, "label 1 has no name"),
        ({"names": None, "train": [-1], "test": [0]}, "greater than or equal to 0"),
        ({"names": None, "train": [True], "test": [0]}, "valid integer"),
    ],
)
def test_impossible_labels_are_refused(content: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Labels.model_validate(content)
