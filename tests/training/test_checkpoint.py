"""Checkpoints: what was written, or one printed line and the one before."""

import math
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from acf.errors import UnwritableError
from acf.runs.files import temporary_of
from acf.training.checkpoint import BEFORE, NAME, read_checkpoint, write_checkpoint


def write(folder: Path, step: int) -> bytes:
    write_checkpoint(folder, {"step": step, "weights": torch.full((5,), float(step)), "rows": [{"a": math.pi}]})
    return (folder / NAME).read_bytes()


def step_of(folder: Path) -> int | None:
    content = read_checkpoint(folder)
    if content is None:
        return None
    assert torch.equal(content["weights"], torch.full((5,), float(content["step"])))
    assert content["rows"] == [{"a": math.pi}]
    return content["step"]


def flip(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_the_last_of_two_checkpoints_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert step_of(tmp_path) is None
    for step in (1, 2, 3):
        write(tmp_path, step)
        assert step_of(tmp_path) == step
    assert {path.name for path in tmp_path.iterdir()} == {NAME, BEFORE}
    (tmp_path / NAME).unlink()  # as a process leaves it that is killed between two renamings
    assert step_of(tmp_path) == 2
    assert capsys.readouterr().out == ""


def make_unreadable(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)  # a loop; permissions do not bind root


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "x").touch()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "one byte": lambda path: path.write_bytes(b"a"),
    "a line": lambda path: path.write_bytes(b"acf checkpoint, sha256 \n"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-200]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "zeros": lambda path: path.write_bytes(bytes(len(path.read_bytes()))),
    "without header": lambda path: path.write_bytes(path.read_bytes()[88:]),
    "a folder": make_folder,
    "unreadable": make_unreadable,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_line_and_the_checkpoint_before_it(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)
    DAMAGES[damage](tmp_path / NAME)
    assert step_of(tmp_path) == 1
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert line.startswith(f"{tmp_path / NAME} is damaged (")
    assert line.endswith("; training goes on from the checkpoint before it\n")
    assert step_of(tmp_path) == 1
    assert capsys.readouterr().out == ""
    write(tmp_path, 2)
    DAMAGES[damage](tmp_path / BEFORE)
    assert step_of(tmp_path) == 2
    DAMAGES["cut"](tmp_path / NAME)
    assert step_of(tmp_path) is None
    assert "training starts again" in capsys.readouterr().out


def test_no_flipped_bit_is_read(tmp_path: Path) -> None:
    """Every bit of the header, and a seeded sample of the others."""
    write(tmp_path, 1)
    good = write(tmp_path, 2)
    bits = [*range(8 * 88), *random.Random(0).sample(range(8 * 88, 8 * len(good)), 300)]
    for bit in bits:
        (tmp_path / NAME).write_bytes(flip(good, bit))
        assert step_of(tmp_path) == 1, bit


def test_a_write_that_fails_leaves_a_good_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)
    temporary_of(tmp_path / NAME).mkdir()
    with pytest.raises(UnwritableError, match=rf"cannot write {tmp_path / NAME}: "):
        write(tmp_path, 3)
    assert step_of(tmp_path) == 2
    temporary_of(tmp_path / NAME).rmdir()
    write(tmp_path, 3)
    assert step_of(tmp_path) == 3
    os.truncate(tmp_path / NAME, 100)
    assert step_of(tmp_path) == 2
