"""Small source files in the true format of every data set, and the data sets cut down to them."""

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from acf.data.formats.tfrecord import masked_checksum
from acf.data.sources import celebahq, cifar10, imagenet, mnist, svhn

Images = dict[str, np.ndarray]
"""Training and test images, (N, C, H, W)."""


def random_images(train: int, test: int, shape: tuple[int, int, int], levels: int = 256) -> Images:
    generator = np.random.default_rng(0)
    return {
        split: generator.integers(0, levels, (count, *shape), dtype=np.uint8)
        for split, count in {"train": train, "test": test}.items()
    }


def last(images: np.ndarray) -> np.ndarray:
    """(N, C, H, W) -> (N, H, W, C)."""
    return np.moveaxis(images, 1, -1)


def idx(images: np.ndarray) -> bytes:
    count, _, height, width = images.shape
    return gzip.compress(struct.pack(">HBBIII", 0, 8, 3, count, height, width) + images.tobytes(), mtime=0)


def classes(images: np.ndarray) -> np.ndarray:
    """The label of each image (N, C, H, W), which can be told from the image: its first value modulo 10."""
    return images[:, 0, 0, 0] % 10


def png(image: np.ndarray) -> bytes:
    """(H, W, C) to a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, "PNG")
    return buffer.getvalue()


def tar(path: Path, members: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def npz_zip(path: Path, batches: dict[str, np.ndarray]) -> None:
    """Batches of images (N, C, H, W), as image-net.org packs them."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, images in batches.items():
            buffer = io.BytesIO()
            np.savez(buffer, data=images.reshape(len(images), -1), labels=np.zeros(len(images)), mean=np.zeros(4))
            archive.writestr(name, buffer.getvalue())


def record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return b"".join(
        [length, struct.pack("<I", masked_checksum(length)), content, struct.pack("<I", masked_checksum(content))]
    )


def example(image: np.ndarray) -> bytes:
    """A `tf.train.Example` with the features shape, label and data, as Glow wrote them."""

    def field(number: int, content: bytes) -> bytes:
        size, length = len(content), b""
        while size > 127:
            length += bytes([size & 127 | 128])
            size >>= 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + content

    def entry(name: str, feature: bytes) -> bytes:
        return field(1, field(1, name.encode()) + field(2, feature))

    numbers = field(3, field(1, bytes([5, 5, 3])))
    return field(1, entry("shape", numbers) + entry("data", field(1, field(1, image.tobytes()))))


@dataclass(frozen=True)
class Case:
    """A data set: what its source files hold, and how they are written to a folder."""

    images: Images
    write: Callable[[Images, Path], None]


def write_mnist(images: Images, folder: Path) -> None:
    for split, remote in mnist.FILES.items():
        (folder / remote.name).write_bytes(idx(images[split]))
        labels = classes(images[split]).astype(np.uint8)
        content = struct.pack(">HBBI", 0, 8, 1, len(labels)) + labels.tobytes()
        (folder / mnist.LABEL_FILES[split].name).write_bytes(gzip.compress(content, mtime=0))


def write_cifar10(images: Images, folder: Path) -> None:
    def batch(part: np.ndarray) -> bytes:
        labels = classes(part)
        return b"".join(bytes([label]) + image.tobytes() for label, image in zip(labels, part, strict=True))

    parts = zip(cifar10.BATCHES["train"], np.array_split(images["train"], 5), strict=True)
    members = {"cifar-10-batches-bin/readme.html": b"read me"}
    members |= {f"cifar-10-batches-bin/{name}": batch(part) for name, part in reversed(list(parts))}
    members["cifar-10-batches-bin/test_batch.bin"] = batch(images["test"])
    tar(folder / cifar10.ARCHIVE.name, members, "w:gz")


def write_svhn(images: Images, folder: Path) -> None:
    for split, remote in svhn.FILES.items():
        x = np.moveaxis(last(images[split]), 0, -1)
        digits = classes(images[split])
        y = np.where(digits == 0, 10, digits).astype(np.uint8)[:, None]
        savemat(folder / remote.name, {"X": x, "y": y}, do_compression=True)


def write_imagenet_png(images: Images, folder: Path) -> None:
    side = images["train"].shape[-1]
    for split, name in {"train": "train", "test": "valid"}.items():
        members = {f"{name}_{side}x{side}/{i:06}.png": png(image) for i, image in enumerate(last(images[split]))}
        tar(folder / f"{name}_{side}x{side}.tar", members)


def write_imagenet_npz(images: Images, folder: Path) -> None:
    side = images["train"].shape[-1]
    names = imagenet.ImageNet32.parts if side == 32 else imagenet.ImageNet64.parts
    batches = np.array_split(images["train"], 11)
    named = {f"train_data_batch_{i}.npz": batch for i, batch in enumerate(batches, start=1)}
    shares = np.array_split(list(named), len(names))
    for name, share in zip(names, shares, strict=True):
        # Not in the order of their numbers, of which 10 comes after 9.
        npz_zip(folder / name, {key: named[key] for key in sorted(map(str, share))})
    npz_zip(folder / f"Imagenet{side}_val_npz.zip", {"val_data.npz": images["test"]})


def write_celebahq64(images: Images, folder: Path) -> None:
    np.save(folder / celebahq.ARRAY.name, last(np.concatenate([images["train"], images["test"]])))


def write_celebahq256(images: Images, folder: Path) -> None:
    members = {}
    for split, name in {"train": "train", "test": "validation"}.items():
        for shard, part in enumerate(np.array_split(last(images[split]), 2)):
            content = b"".join(record(example(image)) for image in part)
            members[f"celeba-tfr/{name}/{name}-r08-s-{shard:04}-of-0120.tfrecords"] = content
        members[f"celeba-tfr/{name}/{name}-r02-s-0000-of-0120.tfrecords"] = record(b"of another size")
    tar(folder / celebahq.ARCHIVE.name, members)


CASES = {
    "mnist": Case(random_images(6, 3, (1, 28, 28)), write_mnist),
    "cifar10": Case(random_images(11, 3, (3, 32, 32)), write_cifar10),
    "svhn": Case(random_images(6, 3, (3, 32, 32)), write_svhn),
    "imagenet32": Case(random_images(23, 4, (3, 32, 32)), write_imagenet_png),
    "imagenet64": Case(random_images(23, 4, (3, 64, 64)), write_imagenet_npz),
    "celebahq64": Case(random_images(18, 2, (3, 64, 64), 32), write_celebahq64),
    "celebahq256": Case(random_images(5, 3, (3, 256, 256)), write_celebahq256),
}
CLASSES = {
    "mnist": mnist.MNIST,
    "cifar10": cifar10.CIFAR10,
    "svhn": svhn.SVHN,
    "imagenet32": imagenet.ImageNet32,
    "imagenet64": imagenet.ImageNet64,
    "celebahq64": celebahq.CelebAHQ64,
    "celebahq256": celebahq.CelebAHQ256,
}


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every data set have the numbers of images of its case, and files of any checksum."""
    for name, case in CASES.items():
        if name != "celebahq64":
            monkeypatch.setattr(CLASSES[name], "counts", {split: len(x) for split, x in case.images.items()})
    for module in (mnist, svhn):
        for files in {"FILES", "LABEL_FILES"} & set(vars(module)):
            unknown = {split: replace(remote, md5="") for split, remote in getattr(module, files).items()}
            monkeypatch.setattr(module, files, unknown)
    monkeypatch.setattr(cifar10, "ARCHIVE", replace(cifar10.ARCHIVE, md5=""))


def written(name: str, project: Path) -> Path:
    """Write the case's source files to the mirror."""
    CASES[name].write(CASES[name].images, project / "mirror")
    return project / "mirror"


def left_over(root: Path) -> set[str]:
    """Files below the data folder, but for locks and the downloads' own folder."""
    return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.name != "lock"}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
