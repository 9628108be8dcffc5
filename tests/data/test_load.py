import json
import shutil
import zipfile
from pathlib import Path
from pickle import UnpicklingError

import pytest
import torch

from acf.data import Manifest, load, read_manifest, verify
from acf.errors import ConfigError, DataError


@pytest.fixture
def root(digits, tmp_path):
    return shutil.copytree(digits, tmp_path, dirs_exist_ok=True)


def edit(root: Path, **changes: object) -> None:
    path = root / "digits" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_manifest_round_trip(root):
    manifest = read_manifest("digits", root)
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
    assert set(json.loads((root / "digits" / "manifest.json").read_text())) == {
        "dataset",
        "shape",
        "levels",
        "bits",
        "counts",
        "sha256",
        "labels",
        "source",
    }
    with pytest.raises(ValueError, match="frozen"):
        manifest.levels = 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra": 1}, "extra: Extra inputs"),
        ({"levels": 0}, "levels"),
        ({"bits": 8}, "log2 of 17 levels"),
        ({"counts": {"train": 1500}}, "counts: .*no entry for test"),
        ({"sha256": {"train": "x", "test": "y"}}, "sha256.train"),
        ({"labels": "x"}, "labels"),
        ({"shape": [1, 8]}, "shape"),
        ({"dataset": "other"}, "of data set 'other'"),
    ],
)
def test_wrong_manifest(root, changes, message):
    edit(root, **changes)
    with pytest.raises(DataError, match=message) as error:
        read_manifest("digits", root)
    assert "manifest.json" in str(error.value)
    assert "acf prepare --dataset digits" in str(error.value)


def test_manifest_that_is_no_json(root):
    path = root / "digits" / "manifest.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(DataError, match="damaged"):
        read_manifest("digits", root)


@pytest.mark.parametrize("name", ["manifest.json", "test.pth"])
def test_missing_file(root, name):
    (root / "digits" / name).unlink()
    with pytest.raises(DataError, match="not found; run: acf prepare --dataset digits") as error:
        load("digits", "test", root)
    assert str(root / "digits" / name) in str(error.value)


@pytest.mark.parametrize("keep", [0, 1, 100, 10000, -1])
def test_truncated_file(root, keep):
    path = root / "digits" / "test.pth"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match="truncated or damaged") as error:
        load("digits", "test", root)
    assert str(path) in str(error.value)
    assert "acf prepare" in str(error.value)


def test_any_flipped_byte_of_the_file_s_frame(root):
    path = root / "digits" / "test.pth"
    whole = path.read_bytes()
    images = load("digits", "test", root)[:].clone()
    places = [*range(0, 400), *range(len(whole) - 400, len(whole))]
    for place in places:
        broken = bytearray(whole)
        broken[place] ^= 1 << place % 8
        path.write_bytes(broken)
        message = ""
        try:
            verify("digits", root)
        except DataError as error:
            message = str(error)
        assert "\n" not in message
        assert "weights_only" not in message
        assert message or torch.equal(load("digits", "test", root)[:], images)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UnicodeDecodeError("utf-8", b"\xd2", 0, 1, "invalid continuation byte"), "UnicodeDecodeError: .*"),
        (
            UnpicklingError("Re-running `torch.load` with `weights_only` set to `False` will"),
            "more than a tensor is in it",
        ),
    ],
)
def test_a_file_that_torch_reads_once_and_not_again(root, monkeypatch, error, reason):
    """Which bytes torch's reader of the zip format takes for a damaged name is up to chance."""
    readings = iter([torch.load] * 4 + [None])  # of train.pth one and two, of test.pth one and the failing one

    def read(*arguments, **options):
        if reader := next(readings):
            return reader(*arguments, **options)
        raise error

    monkeypatch.setattr(torch, "load", read)
    with pytest.raises(DataError, match=rf"digits is damaged \({reason}\); run: acf prepare"):
        verify("digits", root)
    assert next(readings, "all are used") == "all are used"


def test_something_else_under_the_name(root):
    path = root / "digits" / "test.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "hello")
    with pytest.raises(DataError, match="truncated or damaged"):
        load("digits", "test", root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(297, 1, 8, 8), "dtype torch.float32"),
        (torch.zeros(296, 1, 8, 8, dtype=torch.uint8), r"shape \(296, 1, 8, 8\), the manifest says \(297,"),
        (torch.zeros(297, 8, 8, dtype=torch.uint8), r"shape \(297, 8, 8\)"),
        (torch.full((297, 1, 8, 8), 17, dtype=torch.uint8), "value 17, but the manifest says 17 levels"),
        (torch.zeros(297, 1, 8, 8, dtype=torch.uint8).transpose(2, 3), "not contiguous"),
        ([1, 2], "holds a list"),
    ],
)
def test_wrong_tensor(root, content, message):
    torch.save(content, root / "digits" / "test.pth")
    with pytest.raises(DataError, match=message):
        load("digits", "test", root)


def test_unknown_split(root):
    with pytest.raises(DataError, match="unknown split 'validation'; known: train, test"):
        load("digits", "validation", root)


def with_eight_bits(root: Path) -> torch.Tensor:
    """Replace the test images by all 256 levels."""
    images = torch.arange(297 * 64).remainder(256).to(torch.uint8).view(297, 1, 8, 8)
    torch.save(images, root / "digits" / "test.pth")
    edit(root, levels=256, bits=8)
    return images


@pytest.mark.parametrize("levels", [256, 128, 32, 2])
def test_levels_are_reduced_to_the_first_bits(root, levels):
    images = with_eight_bits(root)
    reduced = load("digits", "test", root, levels)
    assert reduced.levels == levels
    assert (reduced.shape, len(reduced)) == (images.shape, 297)
    wanted = (images.double() / 256 * levels).floor().to(torch.uint8)
    assert reduced[:].dtype == torch.uint8
    assert torch.equal(reduced[:], wanted)
    assert torch.equal(reduced[torch.tensor([5, 3])], wanted[[5, 3]])
    assert torch.equal(reduced.first(7)[4:], wanted[4:7])
    assert torch.equal(torch.cat(list(reduced.pieces(100))), wanted)


def test_levels_that_do_not_divide_those_stored(root):
    with_eight_bits(root)
    with pytest.raises(ConfigError, match=r"data.levels is 17, but only divisors of the 256 levels"):
        load("digits", "test", root, 17)


def test_verify_looks_at_the_images_that_are_loaded(root):
    """In one archive before another, torch finds the first one's images and Python's zipfile the second one's."""
    path = root / "digits" / "train.pth"
    images = load("digits", "train", root)[:].clone()
    torch.save(images, path)
    good = path.read_bytes()
    verify("digits", root)
    torch.save(images.flip(0), path)
    path.write_bytes(path.read_bytes() + good)
    assert torch.equal(load("digits", "train", root)[:], images.flip(0))
    with pytest.raises(DataError, match=r"train\.pth is damaged: SHA-256"):
        verify("digits", root)
    path.write_bytes(good)
    verify("digits", root)


def test_changed_image_is_seen_by_verify(root):
    verify("digits", root)
    images = load("digits", "test", root)[:].clone()
    images[5, 0, 4, 4] ^= 1
    torch.save(images, root / "digits" / "test.pth")
    load("digits", "test", root)
    with pytest.raises(DataError, match="is damaged: SHA-256") as error:
        verify("digits", root)
    assert str(root / "digits" / "test.pth") in str(error.value)


def test_writing_into_the_tensor_leaves_the_file(root):
    load("digits", "test", root)[:].zero_()
    verify("digits", root)
