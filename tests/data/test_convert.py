import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from acf.data.formats import convert
from acf.data.formats.convert import npy_to_pth
from acf.errors import DataError

GREY = np.random.default_rng(0).integers(0, 17, (5, 4, 3), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (7, 4, 5, 3), dtype=np.uint8)


def store(folder: Path, images: np.ndarray) -> Path:
    np.save(folder / "in.npy", images)
    return folder / "in.npy"


def test_grey_images(tmp_path):
    target = tmp_path / "out" / "train.pth"
    digest, count = npy_to_pth(store(tmp_path, GREY), target, shape=(1, 4, 3), levels=17, count=5)
    assert count == 5
    tensor = torch.load(target, weights_only=True, mmap=True)
    assert tensor.dtype == torch.uint8
    assert tensor.is_contiguous()
    assert np.array_equal(tensor.numpy(), GREY[:, None])
    assert digest == hashlib.sha256(GREY.tobytes()).hexdigest()
    assert [path.name for path in target.parent.iterdir()] == ["train.pth"]


@pytest.mark.parametrize("chunk", [1, 130, 2**20])
def test_colour_images_whatever_the_chunk(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(convert, "CHUNK_BYTES", chunk)
    target = tmp_path / "train.pth"
    digest, _ = npy_to_pth(store(tmp_path, COLOUR), target, shape=(3, 4, 5), levels=256, count=7)
    expected = COLOUR.transpose(0, 3, 1, 2)
    tensor = torch.load(target, weights_only=True)
    assert tensor.is_contiguous()
    assert np.array_equal(tensor.numpy(), expected)
    assert digest == hashlib.sha256(expected.tobytes()).hexdigest()
    assert {path.name for path in tmp_path.iterdir()} == {"in.npy", "train.pth"}
    assert target.stat().st_size < COLOUR.nbytes + 4096, "the file holds the images once"


def test_column_major_array(tmp_path):
    source = store(tmp_path, np.asfortranarray(GREY))
    npy_to_pth(source, tmp_path / "out.pth", shape=(1, 4, 3), levels=17, count=5)
    assert np.array_equal(torch.load(tmp_path / "out.pth").numpy(), GREY[:, None])


def test_same_images_same_bytes_under_any_name(tmp_path):
    source = store(tmp_path, GREY)
    for name in ("a.pth", "another.pth"):
        npy_to_pth(source, tmp_path / name, shape=(1, 4, 3), levels=17, count=5)
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "another.pth").read_bytes()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (GREY.astype(np.float32), "dtype float32"),
        (GREY.astype(np.int64), "dtype int64"),
        (GREY[:4], r"\(4, 4, 3\); expected .*\(5, 4, 3, 1\)"),
        (GREY.transpose(0, 2, 1), r"\(5, 3, 4\)"),
        (GREY[:, None], r"\(5, 1, 4, 3\)"),
        (GREY + np.uint8(1), "value 17; with 17 levels"),
    ],
)
def test_wrong_arrays(tmp_path, images, message):
    source, target = store(tmp_path, images), tmp_path / "train.pth"
    target.write_text("the old one")
    with pytest.raises(DataError, match=message) as error:
        npy_to_pth(source, target, shape=(1, 4, 3), levels=17, count=5)
    assert str(source) in str(error.value)
    assert target.read_text() == "the old one"


def test_files_that_are_no_arrays(tmp_path):
    def attempt(source: Path, message: str) -> None:
        with pytest.raises(DataError, match=message) as error:
            npy_to_pth(source, tmp_path / "out.pth", shape=(1, 4, 3), levels=17, count=5)
        assert str(source) in str(error.value)
        assert not (tmp_path / "out.pth").exists()

    attempt(tmp_path / "none.npy", "not found")
    source = store(tmp_path, GREY)
    whole = source.read_bytes()
    for size in (len(whole) - 1, 60, 5, 0):
        source.write_bytes(whole[:size])
        attempt(source, "truncated or not a .npy file")
    np.save(source, np.array([{}], dtype=object))
    attempt(source, "truncated or not a .npy file")
    np.savez(tmp_path / "many.npz", a=GREY)
    attempt(tmp_path / "many.npz", "archive")


def test_target_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write"):
        npy_to_pth(store(tmp_path, GREY), tmp_path / "file" / "out.pth", shape=(1, 4, 3), levels=17, count=5)
