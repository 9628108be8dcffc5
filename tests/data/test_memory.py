"""Conversion in constant memory, to the bytes that `torch.save` writes."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from acf.data import Manifest
from acf.data.formats.convert import npy_to_pth
from acf.data.formats.npy import NpyFile, NpyWriter
from acf.data.formats.pth import write_pth
from acf.errors import DataError

SCRIPT = """
import sys
from pathlib import Path
from acf.data.formats.convert import npy_to_pth
print(npy_to_pth(Path(sys.argv[1]), Path(sys.argv[2]), shape=(3, 64, 64), levels=256, count=None))
# Not `ru_maxrss`, which a process takes over from the one that started it.
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(peak)
"""


def sparse(path: Path, count: int) -> None:
    """A large array of zeros, with a value in the last image."""
    with NpyWriter(path, (64, 64, 3)) as writer:
        writer.count = count - 1
        writer._file.seek((count - 1) * 64 * 64 * 3, 1)
        last = np.zeros((1, 64, 64, 3), np.uint8)
        last[..., -1] = 9
        writer.append(last)


def converted(tmp_path: Path, count: int) -> int:
    """Convert `count` images in a process of its own; return its peak memory in KiB."""
    sparse(tmp_path / "in.npy", count)
    command = [sys.executable, "-c", SCRIPT, tmp_path / "in.npy", tmp_path / "out.pth"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    images = torch.load(tmp_path / "out.pth", weights_only=True, mmap=True)
    assert images.shape == (count, 3, 64, 64)
    assert images[-1].unique_consecutive(dim=0).shape[0] == 2
    assert int(images[-1].sum()) == 9 * 64 * 64
    assert int(images[-2].sum()) == 0
    return int(result.stdout.splitlines()[-1])


def test_memory_does_not_grow_with_the_array(tmp_path: Path) -> None:
    small, large = converted(tmp_path, 100), converted(tmp_path, 40_000)  # 0.5 GB
    assert large < 2**20
    assert large < small + 200 * 2**10


VERIFY = """
import sys
from pathlib import Path
from acf.data import verify
verify("own", Path(sys.argv[1]))
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(peak)
"""


def verified(root: Path, count: int) -> int:
    """Verify prepared images in a process of its own; return its peak memory in KiB."""
    (root / "own").mkdir(parents=True)
    hashes = {}
    for split, number in {"train": count, "test": 10}.items():
        sparse(root / "in.npy", number)
        target = root / "own" / f"{split}.pth"
        hashes[split], _ = npy_to_pth(root / "in.npy", target, shape=(3, 64, 64), levels=256, count=None)
    manifest = Manifest(
        dataset="own",
        shape=(3, 64, 64),
        levels=256,
        bits=8,
        counts={"train": count, "test": 10},
        sha256=hashes,
        source="made by the test",
    )
    (root / "own" / "manifest.json").write_text(manifest.model_dump_json())
    result = subprocess.run([sys.executable, "-c", VERIFY, root], capture_output=True, text=True, check=True)
    return int(result.stdout)


@pytest.mark.slow  # half a minute
def test_memory_of_verification_does_not_grow_with_the_data(tmp_path: Path) -> None:
    small, large = verified(tmp_path / "small", 100), verified(tmp_path / "large", 20_000)  # 0.25 GB
    assert large < small + 50 * 2**10


@pytest.mark.slow
def test_beyond_four_gigabytes(tmp_path: Path) -> None:
    assert converted(tmp_path, 360_000) < 2**20
    with zipfile.ZipFile(tmp_path / "out.pth") as archive:
        assert archive.testzip() is None


@pytest.mark.parametrize("shape", [(5, 3, 4, 4), (1, 1, 1, 1), (1500, 1, 8, 8), (200, 3, 32, 32)])
def test_bytes_of_torch_save(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for pieces in (1, min(3, shape[0])):
        with (tmp_path / "ours.pth").open("wb") as file:
            write_pth(file, tmp_path / "ours.pth", shape, iter(np.array_split(images, pieces)))
        with (tmp_path / "theirs.pth").open("wb") as file:
            torch.save(torch.from_numpy(images), file)
        assert (tmp_path / "ours.pth").read_bytes() == (tmp_path / "theirs.pth").read_bytes()
    with zipfile.ZipFile(tmp_path / "ours.pth") as archive:
        assert archive.testzip() is None


@pytest.mark.parametrize("count", [4, 6])
def test_other_numbers_of_values_are_refused(tmp_path: Path, count: int) -> None:
    images = np.zeros((count, 1, 2, 2), np.uint8)
    with (tmp_path / "a.pth").open("wb") as file, pytest.raises(ValueError, match="shape"):
        write_pth(file, tmp_path / "a.pth", (5, 1, 2, 2), iter([images]))


@pytest.mark.parametrize("size", [1, 100, 10_000])
def test_pieces_of_an_array(tmp_path: Path, size: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 4, 5, 3), dtype=np.uint8)
    for order in ("C", "F"):
        np.save(tmp_path / "a.npy", np.asarray(images, order=order))
        assert np.array_equal(np.concatenate(list(NpyFile(tmp_path / "a.npy").chunks(size))), images)
    with NpyWriter(tmp_path / "b.npy", (4, 5, 3)) as writer:
        for piece in NpyFile(tmp_path / "a.npy").chunks(size):
            writer.append(piece)
    assert np.array_equal(np.load(tmp_path / "b.npy"), images)


def test_an_array_that_shrinks_while_it_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((10, 4, 4), np.uint8))
    images = NpyFile(tmp_path / "a.npy")
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-20])
    with pytest.raises(DataError, match="changed while it was read"):
        list(images.chunks(32))
