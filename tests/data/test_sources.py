"""Every data set from source files in their true format to tensors, and what happens to damaged ones."""

import io
import json
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from sources import CASES, example, last, png, random_images, record, shrink, tar, write_imagenet_npz
from typer.testing import CliRunner

from acf.cli import app
from acf.data import load, prepare, verify
from acf.data.progress import shown
from acf.data.tfrecord import feature, masked_checksum, records
from acf.errors import DataError
from acf.registry import DATASETS


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the mirror in `mirror` and data sets cut down to the cases."""
    shrink(monkeypatch)
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("ACF_MIRROR", str(tmp_path / "mirror"))
    return tmp_path


def written(name: str, project: Path) -> Path:
    """Write the case's source files to the mirror."""
    CASES[name].write(CASES[name].images, project / "mirror")
    return project / "mirror"


def expected(name: str, split: str) -> np.ndarray:
    images = CASES[name].images[split]
    return images >> 3 if name == "celebahq256" else images


def left_over(root: Path) -> set[str]:
    """Files below the data folder, but for locks and the downloads' own folder."""
    return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.name != "lock"}


@pytest.mark.parametrize("name", sorted(set(CASES) - {"celebahq64"}))
def test_images_arrive_as_they_are_in_the_source(name: str, project: Path) -> None:
    written(name, project)
    manifest = prepare(name, project / "data")
    for split in ("train", "test"):
        assert np.array_equal(load(name, split, project / "data").numpy(), expected(name, split))
    assert verify(name, project / "data") == manifest
    assert left_over(project / "data") == {f"{name}/{part}" for part in ("train.pth", "test.pth", "manifest.json")}


def test_both_forms_of_imagenet_give_the_same(project: Path) -> None:
    write_imagenet_npz(CASES["imagenet32"].images, project / "mirror")
    by_batches = prepare("imagenet32", project / "batches")
    for path in (project / "mirror").iterdir():
        path.unlink()
    written("imagenet32", project)
    assert prepare("imagenet32", project / "pngs").sha256 == by_batches.sha256
    one, two = (project / folder / "imagenet32/train.pth" for folder in ("batches", "pngs"))
    assert one.read_bytes() == two.read_bytes()


def test_celebahq64_holds_a_tenth_out(project: Path) -> None:
    written("celebahq64", project)
    prepare("celebahq64", project / "data")
    parts = {split: load("celebahq64", split, project / "data").numpy() for split in ("train", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 18, "test": 2}
    seen = {split: {image.tobytes() for image in part} for split, part in parts.items()}
    assert not seen["train"] & seen["test"]
    everything = np.concatenate(list(CASES["celebahq64"].images.values()))
    assert seen["train"] | seen["test"] == {image.tobytes() for image in everything}
    prepare("celebahq64", project / "again")
    assert np.array_equal(load("celebahq64", "test", project / "again").numpy(), parts["test"])


@pytest.mark.parametrize("name", ["imagenet32", "imagenet64", "celebahq64"])
def test_what_has_to_be_fetched_by_hand_is_said(name: str, project: Path) -> None:
    with pytest.raises(DataError, match="by hand") as error:
        prepare(name, project / "data")
    message = str(error.value)
    folder = project / "mirror"
    CASES[name].write(CASES[name].images, folder)
    for path in folder.iterdir():
        assert path.name in message
    assert f"{project / 'data/.downloads' / name}/" in message
    for path in folder.iterdir():
        path.rename(project / "data/.downloads" / name / path.name)
    prepare(name, project / "data")


def test_a_folder_of_images(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from acf.data.folder import ImageFolder

    images = last(random_images(21, 1, (3, 8, 8))["train"])
    wide = np.zeros((8, 16, 3), np.uint8)
    wide[:, 4:12] = images[0]
    (project / "faces/more").mkdir(parents=True)
    (project / "faces/a.png").write_bytes(png(wide))
    for i, image in enumerate(images[1:]):
        (project / f"faces/more/{i:02}.png").write_bytes(png(image))
    (project / "faces/notes.txt").write_text("no image")

    class Own(ImageFolder):
        name, shape, folder, source = "own", (3, 8, 8), str(project / "faces"), "made by the test"

    monkeypatch.setitem(DATASETS, "own", f"{__name__}:Own")
    monkeypatch.setattr(f"{__name__}.Own", Own, raising=False)
    manifest = prepare("own", project / "data")
    assert manifest.counts == {"train": 19, "test": 2}
    arrived = {x.numpy().tobytes() for split in ("train", "test") for x in load("own", split, project / "data")}
    assert arrived == {np.moveaxis(image, -1, 0).tobytes() for image in images}
    (project / "faces/more/00.png").write_bytes(b"\x89PNG no")
    with pytest.raises(DataError, match=r"00\.png is damaged or no image"):
        prepare("own", project / "again")


@pytest.mark.parametrize("channels", [1, 3])
def test_an_array_of_ones_own(project: Path, monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    from acf.data.arrays import ArrayFile

    images = last(random_images(20, 1, (channels, 6, 4))["train"])
    np.save(project / "own.npy", images.squeeze(-1) if channels == 1 else images)

    class Own(ArrayFile):
        name, shape, array, source = "own", (channels, 6, 4), str(project / "own.npy"), "made by the test"
        levels = 256

    monkeypatch.setitem(DATASETS, "own", f"{__name__}:Own")
    monkeypatch.setattr(f"{__name__}.Own", Own, raising=False)
    assert prepare("own", project / "data").counts == {"train": 18, "test": 2}
    arrived = {x.numpy().tobytes() for split in ("train", "test") for x in load("own", split, project / "data")}
    assert arrived == {np.moveaxis(image, -1, 0).tobytes() for image in images}


def test_the_first_hash_is_kept_and_another_content_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = written("celebahq256", project)
    prepare("celebahq256", project / "data")
    assert "data-hashes.json" in capsys.readouterr().out
    hashes = json.loads((project / "data-hashes.json").read_text())
    assert list(hashes["celebahq256"]) == ["celeba-tfr.tar"]
    prepare("celebahq256", project / "again")
    archive = folder / "celeba-tfr.tar"
    archive.write_bytes(archive.read_bytes() + bytes(512))
    with pytest.raises(DataError, match=r"celeba-tfr\.tar has the wrong content: expected SHA-256"):
        prepare("celebahq256", project / "third")


def test_no_hash_is_kept_of_a_file_that_could_not_be_converted(project: Path) -> None:
    cut(written("celebahq256", project) / "celeba-tfr.tar")
    with pytest.raises(DataError):
        prepare("celebahq256", project / "data")
    assert not (project / "data-hashes.json").exists()


# Damage ----------------------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


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
    assert file in str(error.value) or "train.npy" in str(error.value)
    assert {path for path in left_over(project / "data") if not path.endswith("train.pth")} == set()
    assert not (project / "evil.png").exists()
    with pytest.raises(DataError, match="manifest"):
        load(name, "train", project / "data")


# TFRecords -------------------------------------------------------------------------------------------------------


def test_checksum_is_that_of_the_format() -> None:
    # CRC-32C of 32 zero bytes is 0x8a9136aa (RFC 3720, appendix B.4); the mask is TensorFlow's.
    rotated = (0x8A9136AA >> 15 | 0x8A9136AA << 17) & 0xFFFFFFFF
    assert masked_checksum(bytes(32)) == (rotated + 0xA282EAD8) & 0xFFFFFFFF


def test_records_and_features(tmp_path: Path) -> None:
    images = last(random_images(3, 1, (3, 8, 8))["train"])
    path = tmp_path / "a.tfrecords"
    path.write_bytes(b"".join(record(example(image)) for image in images))
    found = [feature(content, "data", "here") for content in records(path)]
    assert found == [image.tobytes() for image in images]
    with pytest.raises(DataError, match="here has no feature 'image'"):
        feature(next(iter(records(path))), "image", "here")
    with pytest.raises(DataError, match="here"):
        feature(b"\xff\xff no example", "data", "here")
    whole = path.read_bytes()
    for size in (len(whole) - 1, len(whole) - 10, 300, 11):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"record \d is truncated"):
            list(records(path))
    for place in (0, 9, 100, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DataError, match=r"record \d is damaged|too many"):
            list(records(path))


def test_png_helper_round_trips() -> None:
    from PIL import Image

    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(SMALL)))), SMALL)


# The command line ------------------------------------------------------------------------------------------------


def test_the_list_follows_what_is_there(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)

    def states() -> dict[str, str]:
        result = CliRunner().invoke(app, ["data", "list", "--json"])
        assert result.exit_code == 0
        return {entry["name"]: entry["state"] for entry in json.loads(result.output)}

    assert states() == {name: "missing" for name in DATASETS} | {
        name: "manual" for name in ("imagenet32", "imagenet64", "celebahq64")
    }
    written("mnist", project)
    prepare("mnist")
    (project / "data/.downloads/svhn").mkdir(parents=True)
    (project / "data/.downloads/svhn/train_32x32.mat.part").write_bytes(b"half")
    assert (states()["mnist"], states()["svhn"]) == ("ready", "partial")
    (project / "data/mnist/manifest.json").unlink()
    assert states()["mnist"] == "partial"
    table = CliRunner().invoke(app, ["data", "list"]).output
    for name in DATASETS:
        assert name in table


def test_verify_recomputes_the_hashes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    written("mnist", project)
    prepare("mnist")
    result = CliRunner().invoke(app, ["data", "verify", "mnist"])
    assert (result.exit_code, result.output) == (0, "mnist: content verified, 6 train, 3 test images\n")
    flip(project / "data/mnist/train.pth")
    with pytest.raises(DataError, match=r"train\.pth is damaged: SHA-256"):
        CliRunner().invoke(app, ["data", "verify", "mnist"], catch_exceptions=False)


def test_progress_is_shown_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def count() -> str:
        assert sum(len(piece) for piece in shown(iter([np.zeros((5, 1)), np.zeros((2, 1))]), "reading", 7)) == 7
        return capsys.readouterr().err

    assert count() == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert "reading" in count()
