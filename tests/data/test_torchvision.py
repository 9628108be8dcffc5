"""Classes of torchvision.datasets: their images, splits and labels, what is fetched, and what is refused."""

import bz2
import gzip
import hashlib
import json
import math
import pickle
import struct
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from acf.cli import app
from acf.data import load, overview, read_manifest
from acf.data.download.downloads import Downloads
from acf.data.formats.images import Target, fitted
from acf.data.formats.pictures import as_picture
from acf.data.prepared.labels import Labels, read_labels
from acf.data.sources import torchvision_dataset
from acf.data.sources.fashion_mnist import NAMES, FashionMNIST
from acf.data.sources.split import drawn
from acf.data.sources.torchvision_dataset import TorchvisionDataset
from acf.errors import AcfError, ConfigError, DataError
from acf.stages.prepare import prepare
from tests.data.conftest import FileServer
from tests.data.sources import png, random_images

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
Register = Callable[[type], None]


@pytest.fixture(scope="module")
def torchvision() -> ModuleType:
    """The package; where its compiled operators are missing, as beside another build of torch, they are declared."""
    with suppress(RuntimeError):
        import torchvision

        return torchvision
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

    return torchvision


def made(**attributes: Any) -> type[TorchvisionDataset]:
    """A data set of one's own, by default of 20 made-up colour images."""
    fake = {"dataset": "FakeData", "arguments": {"size": 20, "image_size": (3, 10, 12), "num_classes": 4}}
    return type("Own", (TorchvisionDataset,), {"name": "own", "shape": (3, 8, 8), **fake, **attributes})


def expected(image: Image.Image, shape: tuple[int, int, int] = (3, 8, 8)) -> np.ndarray:
    """(C, H, W): the image as an image folder would have it."""
    return np.moveaxis(fitted("image", image, Target(shape, fit=True)), -1, 0)


def test_a_class_without_splits_is_divided_by_a_seed(
    torchvision: ModuleType, project: Path, own: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project)
    own(made(test_share=0.25, seed=3))
    assert CliRunner().invoke(app, ["prepare", "--dataset", "own"], catch_exceptions=False).exit_code == 0
    fake = torchvision.datasets.FakeData(20, (3, 10, 12), 4)
    labels = read_labels("own")
    for split, indices in drawn(20, 0.25, 3).items():
        images = load("own", split)[:].numpy()
        assert np.array_equal(images, [expected(fake[i][0]) for i in indices])
        assert getattr(labels, split) == [fake[i][1] for i in indices]
    (entry,) = [e for e in json.loads(CliRunner().invoke(app, ["data", "list", "--json"]).output) if e["name"] == "own"]
    assert (entry["state"], entry["images"]) == ("ready", [15, 5])
    assert "torchvision.datasets.FakeData(size=20, image_size=(3, 10, 12), num_classes=4)" in entry["source"]


def test_other_arguments_prepare_anew(
    torchvision: ModuleType, project: Path, own: Register, capsys: pytest.CaptureFixture[str]
) -> None:
    first = {"size": 6, "image_size": (3, 8, 8)}
    for arguments, again in ((first, False), (first, True), (first | {"random_offset": 1}, False)):
        own(made(arguments=arguments))
        capsys.readouterr()
        prepare("own", project / "data")
        assert ("already prepared" in capsys.readouterr().out) is again


def write_fashion_mnist(folder: Path, count: int) -> None:
    """The first `count` training images of Debian's files, and as many of the test images, as torchvision has them."""
    raw = folder / "FashionMNIST/raw"
    raw.mkdir(parents=True)
    for path in DEBIAN.glob("*.gz"):
        with gzip.open(path) as file:
            kind = file.read(4)
            sizes = struct.unpack(f">{kind[3]}I", file.read(4 * kind[3]))
            number = min(count, sizes[0])
            header = kind + struct.pack(f">{kind[3]}I", number, *sizes[1:])
            content = header + file.read(number * math.prod(sizes[1:]))
        (raw / path.name.removesuffix(".gz")).write_bytes(content)


def fashion(folder: Path) -> type[TorchvisionDataset]:
    return made(
        dataset="FashionMNIST",
        shape=(1, 28, 28),
        arguments={"root": str(folder)},
        splits={"train": {"train": True}, "test": {"train": False}},
    )


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_published_splits_and_names(torchvision: ModuleType, project: Path, own: Register) -> None:
    write_fashion_mnist(project / "files", 50)
    own(fashion(project / "files"))
    prepare("own", project / "data")
    labels = read_labels("own", project / "data")
    assert labels.names == NAMES
    for split, name in (("train", "train"), ("test", "t10k")):
        with gzip.open(DEBIAN / f"{name}-images-idx3-ubyte.gz") as file:
            wanted = np.frombuffer(file.read(16 + 50 * 784)[16:], np.uint8).reshape(50, 1, 28, 28)
        assert np.array_equal(load("own", split, project / "data")[:].numpy(), wanted)
        with gzip.open(DEBIAN / f"{name}-labels-idx1-ubyte.gz") as file:
            assert getattr(labels, split) == list(file.read(8 + 50)[8:])


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_all_of_fashion_mnist_is_that_of_the_projects_own_reader(
    torchvision: ModuleType, project: Path, own: Register
) -> None:
    write_fashion_mnist(project / "files", 60000)
    own(fashion(project / "files"))
    assert prepare("own", project / "data").sha256 == FashionMNIST.sha256


def test_a_folder_per_split(torchvision: ModuleType, project: Path, own: Register) -> None:
    images = {split: np.moveaxis(part, 1, -1) for split, part in random_images(9, 4, (3, 12, 8)).items()}
    for split, part in images.items():
        for i, image in enumerate(part):
            path = project / split / ("cats", "dogs")[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(image))
    roots = {split: {"root": str(project / split)} for split in images}
    own(made(dataset="ImageFolder", arguments={}, splits=roots))
    prepare("own", project / "data")
    labels = read_labels("own", project / "data")
    assert labels.names == ["cats", "dogs"]
    for split, part in images.items():
        order = sorted(range(len(part)), key=lambda i: i % 2)
        arrived = load("own", split, project / "data")[:].numpy()
        assert np.array_equal(arrived, [expected(Image.fromarray(part[i])) for i in order])
        assert getattr(labels, split) == [i % 2 for i in order]
    (project / "test/cats").rename(project / "test/birds")
    with pytest.raises(DataError, match=r"different classes.*\['cats', 'dogs'\] and \['birds', 'dogs'\]"):
        prepare("own", project / "again")


def test_pickled_batches(
    torchvision: ModuleType, project: Path, own: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = random_images(5, 3, (3, 32, 32))
    folder = project / "data/.downloads/own/cifar-10-batches-py"
    folder.mkdir(parents=True)

    def batch(name: str, content: dict[str, Any]) -> list[str]:
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    cifar10 = torchvision.datasets.CIFAR10
    for split, kind in (("train", "train_list"), ("test", "test_list")):
        labels = list(range(len(images[split])))
        listed = [batch(split, {"data": images[split].reshape(len(labels), -1), "labels": labels})]
        monkeypatch.setattr(cifar10, kind, listed)
    meta = batch("batches.meta", {"label_names": list("abcdefghij")})
    monkeypatch.setattr(cifar10, "meta", cifar10.meta | {"md5": meta[1]})
    splits = {"train": {"train": True}, "test": {"train": False}}
    own(made(dataset="CIFAR10", arguments={}, splits=splits, shape=(3, 32, 32)))
    prepare("own", project / "data")
    for split, part in images.items():
        assert np.array_equal(load("own", split, project / "data")[:].numpy(), part)
    assert read_labels("own", project / "data") == Labels(
        names=list("abcdefghij"), train=[0, 1, 2, 3, 4], test=[0, 1, 2]
    )
    (folder / "test").write_bytes(b"damaged")
    monkeypatch.setattr(cifar10, "url", "http://127.0.0.1:9/none")  # where nothing answers
    with pytest.raises(DataError, match=r"torchvision\.datasets\.CIFAR10\(.*URLError.*refused.*; put its files into"):
        prepare("own", project / "again")


def test_only_missing_files_are_fetched(
    torchvision: ModuleType, project: Path, own: Register, monkeypatch: pytest.MonkeyPatch, server: FileServer
) -> None:
    usps = torchvision.datasets.USPS
    generator = np.random.default_rng(0)
    values = {split: generator.integers(-1, 2, (count, 256)) for split, count in (("train", 6), ("test", 3))}
    for split, part in values.items():
        lines = [f"{i % 10 + 1} " + " ".join(f"{k + 1}:{v}" for k, v in enumerate(row)) for i, row in enumerate(part)]
        content = bz2.compress("\n".join(lines).encode())
        name = usps.split_list[split][1]
        server.files[f"/{name}"] = content
        listed = [f"{server.url}/{name}", name, hashlib.md5(content).hexdigest()]
        monkeypatch.setitem(usps.split_list, split, listed)
    own(
        made(
            dataset="USPS", arguments={}, splits={"train": {"train": True}, "test": {"train": False}}, shape=(1, 16, 16)
        )
    )
    prepare("own", project / "data")
    grey = {-1: 0, 0: 127, 1: 255}
    for split, part in values.items():
        images = load("own", split, project / "data")[:].numpy()
        assert images.reshape(-1).tolist() == [grey[v] for v in part.reshape(-1)]
        assert (project / "data/.downloads/own" / usps.split_list[split][1]).is_file()
    assert read_labels("own", project / "data").test == [0, 1, 2]
    asked = len(server.asked)
    assert asked > 0
    (project / "data/own/manifest.json").unlink()
    prepare("own", project / "data")
    assert len(server.asked) == asked


class Items(torch.utils.data.Dataset):
    """What a test puts in the place of a class of torchvision."""

    items: tuple[Any, ...] = ()
    classes = ("a", "b")

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


GREY = Image.new("L", (8, 8), 7)


def prepared(
    monkeypatch: pytest.MonkeyPatch, own: Register, project: Path, targets: list[Any], **attributes: Any
) -> Labels:
    """Prepare two grey images with these targets, of which none means items without target; return their labels."""
    items = tuple((GREY, target) for target in targets) or (GREY, GREY)
    monkeypatch.setattr("torchvision.datasets.Items", type("Items", (Items,), {"items": items}), raising=False)
    own(made(dataset="Items", arguments={}, shape=(1, 8, 8), **attributes))
    prepare("own", project / "data")
    assert read_manifest("own", project / "data").counts == {"train": 1, "test": 1}
    return read_labels("own", project / "data")


@pytest.mark.parametrize(
    ("targets", "part", "labels", "names"),
    [
        ([1, 1], None, [1], ["a", "b"]),
        ([torch.tensor(1), torch.tensor([1])], None, [1], ["a", "b"]),
        ([True, np.int64(1)], None, [1], ["a", "b"]),
        ([5, 5], None, [5], None),  # names are not those of these labels
        ([(9, 1), (9, 1)], 1, [1], None),
        ([{"kind": 1}] * 2, "kind", [1], None),
        ([1, -1], None, None, None),  # torchvision's sign of an image without label
        ([1, 1.5], None, None, None),
        ([GREY, GREY], None, None, None),
        ([], None, None, None),
    ],
)
def test_whole_numbers_are_labels(
    targets: list[Any],
    part: Any,
    labels: list[int] | None,
    names: list[str] | None,
    torchvision: ModuleType,
    project: Path,
    own: Register,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = prepared(monkeypatch, own, project, targets, target_part=part)
    assert found == Labels(names=names, train=labels, test=labels)


@pytest.mark.parametrize(
    ("targets", "part", "message"),
    [
        ([(1, 2), 3], 0, "has a int as its target, which has no part 0"),
        ([("x",)] * 2, 0, "has the label 'x', no whole"),
    ],
)
def test_a_part_of_the_target_that_is_no_label(
    targets: list[Any],
    part: int,
    message: str,
    torchvision: ModuleType,
    project: Path,
    own: Register,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match=f"{message}.*mend `target_part`"):
        prepared(monkeypatch, own, project, targets, target_part=part)


def test_tensors_and_arrays_are_images() -> None:
    values = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    first = torch.from_numpy(values).movedim(-1, 0)
    for image in (values, first, first / 255, first.double() / 255):
        assert np.array_equal(as_picture(image, "image"), values)
    for image in (values[..., 0], values[..., :1], first[:1], first[0]):
        assert np.array_equal(as_picture(image, "image"), values[..., 0])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(2, 4, 4), r"has shape \(2, 4, 4\), which is not that"),
        (torch.zeros(5, 3, 4, 4), "which is not that of a grey or colour image"),
        (torch.zeros(3, 0, 4), "which is not that"),
        (torch.full((3, 4, 4), 1.5), r"outside \[0, 1\]"),
        (torch.full((3, 4, 4), torch.nan), r"outside \[0, 1\]"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "values of int64"),
        ("text", "is a str; only images"),
        (Image.new("I;16", (4, 4)), "more than 8 bits"),
    ],
)
def test_what_is_no_image_is_named(image: Any, message: str) -> None:
    with pytest.raises(DataError, match=f"^item .*{message}|^item {message}"):
        fitted("item", as_picture(image, "item"), Target((3, 4, 4), fit=True))


@pytest.mark.parametrize(
    ("attributes", "kind", "message"),
    [
        ({"dataset": "NoSuchData"}, ConfigError, r"torchvision\.datasets has no class 'NoSuchData'"),
        ({"dataset": "VisionDataset"}, ConfigError, "has no class 'VisionDataset'"),
        ({"arguments": {"sise": 20}}, DataError, "FakeData.*unexpected keyword argument 'sise'; mend `arguments`"),
        ({"arguments": {"size": 1}}, DataError, "has 1 images; own needs at least two"),
        (
            {"dataset": "ImageFolder", "arguments": {"root": "~/none"}},
            DataError,
            r"No such file.*/none.*mend `arguments`",
        ),
        ({"dataset": "EMNIST", "arguments": {"split": "x"}}, DataError, "Unknown value 'x' for argument split"),
        ({"dataset": "FER2013", "arguments": {}}, DataError, r"put its files into .*\.downloads/own as torchvision"),
        ({"shape": (2, 8, 8)}, ConfigError, r"with 1 or 3 channels; mend `shape`"),
        ({"splits": {"train": {}}}, ConfigError, "has splits = .*no entry for test"),
        ({"arguments": None}, ConfigError, "has arguments = None"),
    ],
)
def test_what_cannot_be_prepared_is_one_sentence(
    attributes: dict[str, Any],
    kind: type[AcfError],
    message: str,
    torchvision: ModuleType,
    project: Path,
    own: Register,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torchvision.datasets.EMNIST.url", "http://127.0.0.1:9/none")
    own(made(**attributes))
    with pytest.raises(kind, match=message) as error:
        prepare("own", project / "data")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"needs torchvision, which is not installed: pip install 'acf\[torchvision\]'"),
        (
            "raise RuntimeError('operator torchvision::nms does not exist')",
            "needs torchvision, and .* does not work .*nms.*belongs to this",
        ),
    ],
)
def test_a_package_that_lacks_or_is_broken(
    content: str | None, message: str, project: Path, own: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    if content is None:
        monkeypatch.setitem(sys.modules, "torchvision", None)
    else:
        (project / "torchvision").mkdir()
        (project / "torchvision/__init__.py").write_text(content)
        monkeypatch.syspath_prepend(str(project))
    own(made())
    with pytest.raises(AcfError, match=f"data set own {message}"):
        prepare("own", project / "data")


def test_nothing_else_needs_the_package(own: Register, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    own(made())
    (entry,) = [entry for entry in overview(project / "data") if entry.name == "own"]
    assert (entry.state, entry.problem) == ("missing", None)


def test_memory_does_not_grow_with_the_number_of_images(
    torchvision: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision_dataset, "PIECE", 2**14)
    tracemalloc.start()
    try:
        own = made(shape=(3, 64, 64), arguments={"size": 60, "image_size": (3, 64, 64)})()
        own.export(Downloads("own", tmp_path, tmp_path / "hashes"), tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "train.npy").stat().st_size > 50 * 3 * 64 * 64  # 600 kB
    assert peak < 300_000
