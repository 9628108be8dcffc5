"""Every data set from source files in their true format to tensors, and what happens to damaged ones."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from acf.data import load, verify
from acf.data.download.downloads import Downloads
from acf.errors import DataError
from acf.registry import DATASETS
from acf.stages.prepare import prepare
from tests.data.conftest import FileServer
from tests.data.sources import CASES, cut, last, left_over, png, random_images, write_imagenet_npz, written

FILES = ("train.pth", "test.pth", "labels.json", "manifest.json")


@pytest.mark.parametrize("name", sorted(set(CASES) - {"celebahq64"}))
def test_images_arrive_as_they_are_in_the_source(name: str, project: Path) -> None:
    written(name, project)
    manifest = prepare(name, project / "data")
    for split in ("train", "test"):
        assert np.array_equal(load(name, split, project / "data")[:].numpy(), CASES[name].images[split])
    assert verify(name, project / "data") == manifest
    assert left_over(project / "data") == {f"{name}/{part}" for part in FILES}


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
    parts = {split: load("celebahq64", split, project / "data")[:].numpy() for split in ("train", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 18, "test": 2}
    seen = {split: {image.tobytes() for image in part} for split, part in parts.items()}
    assert not seen["train"] & seen["test"]
    everything = np.concatenate(list(CASES["celebahq64"].images.values()))
    assert seen["train"] | seen["test"] == {image.tobytes() for image in everything}
    prepare("celebahq64", project / "again")
    assert np.array_equal(load("celebahq64", "test", project / "again")[:].numpy(), parts["test"])


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
    from acf.data.sources.folder import ImageFolder

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
    arrived = {x.numpy().tobytes() for split in ("train", "test") for x in load("own", split, project / "data")[:]}
    assert arrived == {np.moveaxis(image, -1, 0).tobytes() for image in images}
    (project / "faces/more/00.png").write_bytes(b"\x89PNG no")
    with pytest.raises(DataError, match=r"00\.png is damaged or no image"):
        prepare("own", project / "again")


def files(folder: Path, *names: str) -> None:
    """Images of different content."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(np.full((8, 8, 3), sum(name.encode()) % 256, np.uint8)))


def export(folder: Path, scratch: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Number of images that a folder gives, and what is said of it."""
    from acf.data.sources.folder import ImageFolder

    class Own(ImageFolder):
        name, shape, source = "own", (3, 8, 8), "made by the test"

    Own.folder = str(folder)
    scratch.mkdir()
    arrays = Own().export(Downloads("own", folder, folder), scratch)
    return sum(len(np.load(path)) for path in arrays.values()), capsys.readouterr().out


def test_linked_folders_and_files_are_read_once(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files(project, "all/cats/1.png", "all/cats/2.PNG", "elsewhere/dogs/3.png", "elsewhere/dogs/more/4.png", "5.png")
    for link, target in {"dogs": "../elsewhere/dogs", "five.png": "../5.png"}.items():
        (project / "all" / link).symlink_to(target)
    assert export(project / "all", project / "one", capsys) == (5, "")
    for link, target in {"cats/round": "..", "again": "cats", "six.png": "../5.png"}.items():
        (project / "all" / link).symlink_to(target)
    (project / "elsewhere/dogs/back").symlink_to("../../all")
    (project / "all/.hidden.png").write_bytes(b"")
    (project / "all/notes.txt").write_text("no image")
    count, said = export(project / "all", project / "two", capsys)
    assert count == 5
    assert "4 links to what is read elsewhere" in said
    assert "1 hidden files or folders" in said
    assert "1 files with other endings" in said
    (project / "linked").symlink_to("all")
    assert export(project / "linked", project / "three", capsys)[0] == 5


def test_what_cannot_be_read_in_a_folder_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused() -> str:
        with pytest.raises(DataError) as error:
            export(project / "all", project / "scratch", capsys)
        (project / "scratch").rmdir()
        return str(error.value)

    assert "all not found; put the images there" in refused()
    (project / "all").write_text("a file")
    assert "all is no folder" in refused()
    (project / "all").unlink()
    (project / "all").mkdir()
    assert "all has 0 images; own needs at least two" in refused()
    files(project, "all/1.png")
    (project / "all/notes.txt").write_text("no image")
    assert "all has 1 images (left out: 1 files with other endings)" in refused()
    files(project, "all/2.png")
    (project / "all/dogs").symlink_to("gone")
    assert "all/dogs is a link to nothing" in refused()


@pytest.mark.parametrize("channels", [1, 3])
def test_an_array_of_ones_own(project: Path, monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    from acf.data.sources.arrays import ArrayFile

    images = last(random_images(20, 1, (channels, 6, 4))["train"])
    np.save(project / "own.npy", images.squeeze(-1) if channels == 1 else images)

    class Own(ArrayFile):
        name, shape, array, source = "own", (channels, 6, 4), str(project / "own.npy"), "made by the test"
        levels = 256

    monkeypatch.setitem(DATASETS, "own", f"{__name__}:Own")
    monkeypatch.setattr(f"{__name__}.Own", Own, raising=False)
    assert prepare("own", project / "data").counts == {"train": 18, "test": 2}
    arrived = {x.numpy().tobytes() for split in ("train", "test") for x in load("own", split, project / "data")[:]}
    assert arrived == {np.moveaxis(image, -1, 0).tobytes() for image in images}


def test_a_fetched_file_that_cannot_be_converted_is_fetched_anew(
    project: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written("celebahq256", project)
    server.files["/celeba-tfr.tar"] = b"<html>busy</html>"
    monkeypatch.setenv("ACF_MIRROR", server.url)
    with pytest.raises(DataError, match=r"celeba-tfr.tar .* has no published checksum: removed"):
        prepare("celebahq256", project / "data")
    server.files["/celeba-tfr.tar"] = (folder / "celeba-tfr.tar").read_bytes()
    prepare("celebahq256", project / "data")


def test_a_file_put_there_by_hand_is_left_to_its_owner(project: Path) -> None:
    path = project / "data/.downloads/celebahq256/celeba-tfr.tar"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"<html>busy</html>")
    with pytest.raises(DataError, match="no published checksum: delete or replace it"):
        prepare("celebahq256", project / "data")
    assert path.exists()


def test_hashes_of_data_sets_prepared_at_once(project: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from acf.data.download.downloads import Downloads\n"
        "for i in range(50):\n"
        "    files = Downloads(f'{sys.argv[1]}{i}', Path('data/.downloads') / sys.argv[1], Path('data-hashes.json'))\n"
        "    files._new = {'file': '0' * 64}\n"
        "    files.record()\n"
    )
    (project / "data/.downloads").mkdir(parents=True)
    both = [subprocess.Popen([sys.executable, "-c", script, name], cwd=project) for name in ("one", "two")]
    assert [process.wait() for process in both] == [0, 0]
    assert len(json.loads((project / "data-hashes.json").read_text())) == 100


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
