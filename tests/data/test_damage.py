"""Damaged source files: each is named in one message, and nothing is left that looks prepared."""

import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from acf.data import load
from acf.errors import DataError
from acf.stages.prepare import prepare
from tests.data.sources import cut, flip, last, left_over, png, random_images, tar, written


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}  # type: ignore[union-attr]


def replaced(path: Path, content: bytes, name: str | None = None) -> None:
    """Put other content in place of the archive's third file, or a file of another name."""
    old = members(path)
    third = sorted(old)[2]
    if name:
        del old[third]
    tar(path, old | {name or third: content})


def bomb() -> bytes:
    """A PNG file of few bytes that says it has 30000 x 30000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def linked(path: Path) -> None:
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("train_32x32/link.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)


SMALL = last(random_images(1, 1, (3, 16, 16))["train"])[0]
DAMAGE = {
    "truncated tar": ("imagenet32", "train_32x32.tar", cut, "truncated or damaged"),
    "tar without its end": (
        "imagenet32",
        "train_32x32.tar",
        lambda path: path.write_bytes(path.read_bytes()[: 512 * 40]),
        "its end is missing",
    ),
    "corrupt PNG": ("imagenet32", "train_32x32.tar", lambda p: replaced(p, b"\x89PNG\r\n\x1a\n no"), "000002.png is"),
    "cut PNG": ("imagenet32", "train_32x32.tar", lambda p: replaced(p, png(SMALL)[:200]), "000002.png"),
    "PNG of another size": ("imagenet32", "train_32x32.tar", lambda p: replaced(p, png(SMALL)), "16 x 16 pixels inst"),
    "decompression bomb": ("imagenet32", "train_32x32.tar", lambda p: replaced(p, bomb()), "too many to be decoded"),
    "path out of the archive": (
        "imagenet32",
        "train_32x32.tar",
        lambda path: replaced(path, b"", "../../evil.png"),
        "leads out of the archive",
    ),
    "link": ("imagenet32", "train_32x32.tar", linked, "no plain file"),
    "missing image": ("imagenet32", "train_32x32.tar", lambda p: replaced(p, b"", "read.me"), r"has shape \(22, 32"),
    "truncated zip": ("imagenet64", "Imagenet64_train_part1_npz.zip", cut, "truncated or damaged"),
    "changed zip": ("imagenet64", "Imagenet64_train_part1_npz.zip", flip, "Imagenet64_train_part1_npz.zip"),
    "array of another dtype": (
        "celebahq64",
        "celeba_full_64x64_5bit.npy",
        lambda path: np.save(path, np.full((20, 64, 64, 3), np.nan, np.float32)),
        "dtype float32",
    ),
    "array of another shape": (
        "celebahq64",
        "celeba_full_64x64_5bit.npy",
        lambda path: np.save(path, np.zeros((20, 3, 64, 64), np.uint8)),
        r"\(18, 3, 64, 64\)",
    ),
    "values of 8 bits": (
        "celebahq64",
        "celeba_full_64x64_5bit.npy",
        lambda path: np.save(path, np.full((20, 64, 64, 3), 32, np.uint8)),
        "value 32",
    ),
    "truncated array": ("celebahq64", "celeba_full_64x64_5bit.npy", cut, "truncated or not a .npy file"),
    "pickled array": (
        "celebahq64",
        "celeba_full_64x64_5bit.npy",
        lambda path: np.save(path, np.array([{}], dtype=object), allow_pickle=True),
        "never loaded",
    ),
    "wrong checksum": ("celebahq256", "celeba-tfr.tar", flip, "checksum does not fit|fetch the file again"),
    "truncated archive of records": ("celebahq256", "celeba-tfr.tar", cut, "truncated or damaged"),
    "truncated gzip": ("mnist", "train-images-idx3-ubyte.gz", cut, "truncated or not a gzip"),
    "truncated tar.gz": ("cifar10", "cifar-10-binary.tar.gz", cut, "truncated or damaged"),
    "changed tar.gz": ("cifar10", "cifar-10-binary.tar.gz", flip, "cifar-10-binary.tar.gz"),
    "truncated MATLAB file": ("svhn", "train_32x32.mat", cut, "train_32x32.mat"),
    "no MATLAB file": ("svhn", "test_32x32.mat", lambda path: path.write_bytes(b"<html>" * 100), "no MATLAB file"),
}


@pytest.mark.parametrize("kind", sorted(DAMAGE))
def test_damage_is_named_and_leaves_nothing(kind: str, project: Path) -> None:
    name, file, harm, message = DAMAGE[kind]
    folder = written(name, project)
    harm(folder / file)  # type: ignore[no-untyped-call]
    with pytest.raises(DataError, match=message) as error:
        prepare(name, project / "data")
    assert file in str(error.value)
    assert "\n" not in str(error.value)
    assert {path for path in left_over(project / "data") if not path.endswith("train.pth")} == set()
    assert not (project / "evil.png").exists()
    with pytest.raises(DataError, match="manifest"):
        load(name, "train", project / "data")
