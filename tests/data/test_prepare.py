import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from acf.data import load, read_manifest, verify
from acf.data.sources.image_dataset import ImageDataset
from acf.errors import ConfigError, DataError
from acf.registry import DATASETS, resolve
from acf.stages.prepare import prepare
from tests.test_cli import in_process

FILES = ("train.pth", "test.pth", "labels.json", "manifest.json")
COLOUR = np.random.default_rng(0).integers(0, 256, (6, 2, 4, 3), dtype=np.uint8)


class Toy(ImageDataset):
    """A data set as a user would add one."""

    name = "toy"
    shape = (3, 2, 4)
    levels = 256
    counts = {"train": 4, "test": 2}  # noqa: RUF012
    source = "made by the test"

    def export(self, downloads: Path, scratch: Path) -> dict[str, Path]:
        for split, images in {"train": COLOUR[:4], "test": COLOUR[4:]}.items():
            np.save(scratch / f"{split}.npy", images)
        return {split: scratch / f"{split}.npy" for split in self.counts}


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(DATASETS, "toy", f"{__name__}:Toy")


def tree(folder: Path) -> set[str]:
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return files - {"params.yaml"}


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_registered_data_sets_know_their_names(name):
    source = resolve(DATASETS, name, "data set")
    assert issubclass(source, ImageDataset)
    assert source.name == name
    assert set(source.counts) == {"train", "test"}
    assert source.sha256 is None or set(source.sha256) == {"train", "test"}
    assert source.licence != "not stated"
    assert source.citation != "none"


def test_a_data_set_of_ones_own(toy, tmp_path):
    manifest = prepare("toy", tmp_path)
    assert manifest == read_manifest("toy", tmp_path) == verify("toy", tmp_path)
    assert np.array_equal(load("toy", "train", tmp_path)[:].numpy(), COLOUR[:4].transpose(0, 3, 1, 2))
    assert tree(tmp_path) == {*(f"toy/{name}" for name in FILES), ".downloads/toy/lock"}


def test_same_bytes_from_the_command_line_and_twice(acf, tmp_path):
    result = acf("prepare", "--dataset", "digits")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    for name in FILES:
        assert f"data/digits/{name}" in result.stdout
    prepare("digits", tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "data/digits" / name).read_bytes() == (tmp_path / "again/digits" / name).read_bytes()


def test_prepared_data_are_left_alone(tmp_path, capsys):
    prepare("digits", tmp_path)
    before = {name: (tmp_path / "digits" / name).stat() for name in FILES}
    capsys.readouterr()
    prepare("digits", tmp_path)
    assert "already prepared" in capsys.readouterr().out
    after = {name: (tmp_path / "digits" / name).stat() for name in FILES}
    assert [s.st_mtime_ns for s in before.values()] == [s.st_mtime_ns for s in after.values()]
    assert [s.st_ino for s in before.values()] == [s.st_ino for s in after.values()]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["removed", "truncated", "changed"])
def test_damage_is_repaired(digits, tmp_path, name, harm):
    shutil.copytree(digits, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "digits" / name
    whole = path.read_bytes()
    if harm == "removed":
        path.unlink()
    else:
        changed = bytearray(whole)
        changed[len(whole) // 2] ^= 1
        path.write_bytes(whole[: len(whole) // 2] if harm == "truncated" else changed)
    prepare("digits", tmp_path)
    assert path.read_bytes() == whole


def test_another_version_of_the_data_set_is_replaced(toy, tmp_path, monkeypatch, capsys):
    prepare("toy", tmp_path)
    monkeypatch.setattr(Toy, "source", "made by a later test")
    prepare("toy", tmp_path)
    assert "another version" in capsys.readouterr().out
    assert read_manifest("toy", tmp_path).source == "made by a later test"


def test_content_other_than_expected_is_refused(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(Toy, "sha256", {"train": "0" * 64, "test": "0" * 64})
    with pytest.raises(DataError, match=f"expected {'0' * 64}"):
        prepare("toy", tmp_path)
    with pytest.raises(DataError, match=r"manifest\.json not found"):
        load("toy", "train", tmp_path)


def test_source_that_fails_leaves_nothing_that_looks_prepared(toy, tmp_path, monkeypatch):
    prepare("toy", tmp_path)
    (tmp_path / "toy" / "test.pth").unlink()
    monkeypatch.setattr(Toy, "shape", (3, 4, 2))
    with pytest.raises(DataError, match=r"array of train images from made by the test has shape"):
        prepare("toy", tmp_path)
    assert tree(tmp_path) == {"toy/train.pth", ".downloads/toy/lock"}


def test_leftovers_of_a_killed_run_do_not_matter(tmp_path):
    for leftover in ("digits/.train.pth.tmp", ".downloads/digits/npy/train.npy", ".downloads/digits/lock"):
        (tmp_path / leftover).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / leftover).write_text("half")
    prepare("digits", tmp_path)
    verify("digits", tmp_path)
    assert tree(tmp_path) == {*(f"digits/{name}" for name in FILES), ".downloads/digits/lock"}


def test_two_at_once(tmp_path):
    (tmp_path / "params.yaml").touch()
    command = [sys.executable, "-m", "acf.cli", "prepare", "--dataset", "digits"]
    both = [subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[1] for process in both] == ["", ""]
    assert [process.returncode for process in both] == [0, 0]
    verify("digits", tmp_path / "data")


@pytest.fixture
def fails(tmp_path, monkeypatch, capsys):
    """Prepare a data set in the empty folder of a project by the command line, which has to fail; return its line."""
    (tmp_path / "params.yaml").touch()
    monkeypatch.chdir(tmp_path)

    def failing(dataset):
        assert in_process(monkeypatch, "prepare", "--dataset", dataset) == 1
        out, errors = capsys.readouterr()
        assert len(errors.splitlines()) == 1, out + errors
        assert out == ""
        return errors

    return failing


def test_unknown_data_set(fails, tmp_path):
    with pytest.raises(ConfigError, match=r"unknown data set 'nope'; known: celebahq256, .*, svhn"):
        prepare("nope", tmp_path)
    assert fails("nope") == f"error: unknown data set 'nope'; known: {', '.join(sorted(DATASETS))}\n"
    assert tree(tmp_path) == set()


@pytest.mark.parametrize(
    ("limit", "name"),
    [(96_100, ".downloads/digits/npy/train.npy"), (97_000, "digits/train.pth")],
)
def test_full_disk(acf, tmp_path, limit, name):
    """A limit on the size of files fails a write half-way, as a full disk does."""
    result = acf(
        "prepare",
        "--dataset",
        "digits",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert result.returncode == 1
    assert f"error: cannot write data/{name}: File too large" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert tree(tmp_path) == {"data/.downloads/digits/lock"}


def test_data_folder_that_cannot_be_made(fails, tmp_path):
    (tmp_path / "data").write_text("in the way")
    assert "cannot write data/" in fails("digits")


def test_read_only_folder(tmp_path):
    prepare("digits", tmp_path)
    (tmp_path / "digits").chmod(0o555)
    (tmp_path / ".downloads").chmod(0o555)
    try:
        prepare("digits", tmp_path)
        if os.access(tmp_path / "digits", os.W_OK):
            pytest.skip("this user (root?) writes into read-only folders")
        with pytest.raises(DataError, match=r"cannot write .*: Permission denied"):
            prepare("fashion-mnist", tmp_path)
    finally:
        (tmp_path / "digits").chmod(0o755)
        (tmp_path / ".downloads").chmod(0o755)


def test_damaged_mirror_on_the_command_line(fails, tmp_path, monkeypatch):
    (tmp_path / "train-images-idx3-ubyte.gz").write_text("not a gzip file")
    monkeypatch.setenv("ACF_MIRROR", str(tmp_path))
    file = f"{tmp_path}/train-images-idx3-ubyte.gz"
    assert fails("fashion-mnist").startswith(f"error: {file} is truncated or not a gzip")


def test_importing_the_package_loads_nothing_heavy():
    script = "import sys, acf.data; acf.data.read_manifest; print(*{'torch', 'sklearn', 'requests'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "\n"
