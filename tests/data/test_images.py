"""Folders of images as people have them: formats, hidden files, many processes, and what stops them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from acf.data.download.downloads import Downloads
from acf.data.formats import images
from acf.data.formats.images import Target, decode
from acf.data.sources.folder import ImageFolder
from acf.errors import DataError

CORES = len(os.sched_getaffinity(0))


def folder_of(path: Path) -> ImageFolder:
    class Own(ImageFolder):
        name, shape, folder, source = "own", (3, 4, 4), str(path), "made by the test"

    return Own()


def exported(path: Path) -> int:
    """Number of images that are made from a folder."""
    scratch = path.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    written = folder_of(path).export(Downloads("own", scratch, scratch / "hashes"), scratch)
    return sum(len(np.load(file)) for file in written.values())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images."""
    made = tmp_path / "faces"
    made.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (8, 8), "red").save(made / f"{name}.png")
    return made


def test_formats_by_any_of_their_endings(folder: Path) -> None:
    for ending in ("jfif", "tga", "jp2", "ico", "pcx", "webp", "GIF"):
        Image.new("RGB", (8, 8), "red").save(folder / f"c.{ending}")
    assert exported(folder) == 9


def test_hidden_files_are_left_out_and_others_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "._a.png").write_bytes(b"no image")
    (folder / ".thumbs").mkdir()
    Image.new("RGB", (8, 8)).save(folder / ".thumbs/a.png")
    (folder / "notes.txt").write_text("no image")
    assert exported(folder) == 2
    assert "left out: 2 hidden files or folders, 1 files with other endings" in capsys.readouterr().out


@pytest.mark.parametrize("values", [np.arange(64, dtype=np.uint16) * 1000, np.linspace(0, 1, 64, dtype=np.float32)])
def test_more_than_eight_bits_are_refused_by_name(folder: Path, values: np.ndarray) -> None:
    Image.fromarray(values.reshape(8, 8)).save(folder / "c.tif")
    with pytest.raises(DataError, match=r"c\.tif has values of more than 8 bits .* convert it"):
        exported(folder)


def test_photographs_are_turned_as_the_camera_was(folder: Path) -> None:
    upright = np.zeros((8, 8, 3), np.uint8)
    upright[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # by half a turn
    Image.fromarray(upright[::-1, ::-1].copy()).save(folder / "turned.png", exif=exif)
    content = (folder / "turned.png").read_bytes()
    (turned,) = next(decode([("turned.png", content)], Target((3, 8, 8), fit=True)))
    assert np.array_equal(turned, upright)


def test_batches_are_bounded_in_bytes() -> None:
    large, small = bytes(images.BATCH_BYTES // 2), bytes(10)
    sizes = [len(batch) for batch in images._batches(("x", c) for c in [large, large, large, *[small] * 600])]
    assert sizes == [2, 256, 256, 89]
    assert [len(batch) for batch in images._batches([("x", bytes(2 * images.BATCH_BYTES))] * 2)] == [1, 1]


SCRIPT = """
import sys
from pathlib import Path
from acf import cli
from acf.data.sources import folder
from acf.registry import DATASETS
class Own(folder.ImageFolder):
    name, shape, folder, source = "own", (3, 64, 64), sys.argv.pop(), "made by the test"
if __name__ == "__main__":
    DATASETS["own"] = "__main__:Own"
    cli.main()
"""


@pytest.fixture
def many(tmp_path: Path) -> Callable[[], subprocess.Popen[str]]:
    """Start `acf prepare` on enough images that processes decode them, and wait until they do."""
    folder = tmp_path / "many"
    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    Image.fromarray(values).save(folder / "0.png")
    for i in range(1, 1000 * CORES):
        os.link(folder / "0.png", folder / f"{i}.png")
    (tmp_path / "own.py").write_text(SCRIPT)
    (tmp_path / "params.yaml").touch()

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "own.py", "prepare", "--dataset", "own", str(folder)],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while len(workers(process)) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return process

    return start


def workers(process: subprocess.Popen[str]) -> list[int]:
    """Process numbers of the decoding children."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process.pid and b"spawn_main" in (place / "cmdline").read_bytes():
                found.append(int(place.name))
    return found


several = pytest.mark.skipif(CORES < 2, reason="one core: no processes are started")


@several
@pytest.mark.parametrize("pause", [0.0, pytest.param(0.5, marks=pytest.mark.slow), 1.5])
def test_an_interrupt_from_the_terminal_is_one_line(many: Callable[[], subprocess.Popen[str]], pause: float) -> None:
    process = many()
    time.sleep(pause)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "interrupted by SIGINT; run the same command again to go on\n")


@several
def test_a_decoding_process_that_is_killed(many: Callable[[], subprocess.Popen[str]]) -> None:
    process = many()
    time.sleep(0.5)
    os.kill(workers(process)[0], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith("error: a process that decodes images was ended from outside")
    assert len(err.splitlines()) == 1
