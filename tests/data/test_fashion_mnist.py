"""Fashion-MNIST from Debian's package dataset-fashion-mnist (Zalando's images; see test_debian_is_zalando)."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from acf.data import load
from acf.data.prepared.labels import read_labels
from acf.data.sources.fashion_mnist import FILES, LABEL_FILES, NAMES
from acf.errors import DataError
from acf.stages.prepare import prepare

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
needs_debian = pytest.mark.skipif(
    not all((DEBIAN / name).is_file() for name in (*FILES.values(), *LABEL_FILES.values())),
    reason=f"{DEBIAN} is absent (apt install dataset-fashion-mnist)",
)
# As published with the data (github.com/zalandoresearch/fashion-mnist), of the gzip files of 31 August 2017.
PUBLISHED = {
    "train-images-idx3-ubyte.gz": ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", 1504176606),
    "t10k-images-idx3-ubyte.gz": ("bef4ecab320f06d8554ea6380940ec79", 1504176627),
    "train-labels-idx1-ubyte.gz": ("25c81989df183df01b3e8a0aad5dffbe", 1504176606),
    "t10k-labels-idx1-ubyte.gz": ("bb300cfdad3c16e7a12a480ee83cd310", 1504176627),
}


@needs_debian
@pytest.mark.parametrize("name", PUBLISHED)
def test_debian_is_zalando(name):
    """With name and time back in the gzip header, Debian's file is the published one, byte for byte."""
    md5, time = PUBLISHED[name]
    packed = (DEBIAN / name).read_bytes()
    header = b"\x1f\x8b\x08\x08" + struct.pack("<I", time) + b"\x00\x03" + name.removesuffix(".gz").encode() + b"\0"
    assert hashlib.md5(header + packed[10:]).hexdigest() == md5


@needs_debian
@pytest.mark.parametrize("mirror", [DEBIAN, pytest.param(DEBIAN.parent, marks=pytest.mark.slow)])
def test_real_images(tmp_path, monkeypatch, mirror):
    monkeypatch.setenv("ACF_MIRROR", str(mirror))
    manifest = prepare("fashion-mnist", tmp_path)
    assert manifest.counts == {"train": 60000, "test": 10000}
    assert manifest.bits == 8
    for split, name in FILES.items():
        raw = gzip.decompress((DEBIAN / name).read_bytes())
        tensor = load("fashion-mnist", split, tmp_path)[:]
        assert tensor.shape == (manifest.counts[split], 1, 28, 28)
        assert np.array_equal(tensor.numpy().reshape(-1), np.frombuffer(raw, np.uint8, offset=16))
    labels = read_labels("fashion-mnist", tmp_path)
    assert labels.names == NAMES
    assert [np.bincount(part).tolist() for part in (labels.train, labels.test)] == [[6000] * 10, [1000] * 10]
    # What Zalando's README shows of the training images: an ankle boot, T-shirts, a dress.
    assert [NAMES[label] for label in labels.train[:5]] == ["Ankle boot", *["T-shirt/top"] * 2, "Dress", "T-shirt/top"]


def test_wrong_file_in_a_mirror(tmp_path, monkeypatch):
    file = tmp_path / "fashion-mnist" / "train-images-idx3-ubyte.gz"
    file.parent.mkdir()
    file.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">III", 1, 28, 28) + bytes(784)))
    monkeypatch.setenv("ACF_MIRROR", str(tmp_path))
    with pytest.raises(DataError, match="wrong content") as error:
        prepare("fashion-mnist", tmp_path / "data")
    assert str(file) in str(error.value)
    assert not (tmp_path / "data" / "fashion-mnist").exists()
