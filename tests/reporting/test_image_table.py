"""Tables of single images are read digit by digit, or refused with the name of the record that they do not fit."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from acf.errors import AcfError
from acf.reporting.image_table import image_table, read_image_table
from acf.stages.project import Project
from acf.stages.report import read_results

VALUES = np.random.default_rng(0).normal(2, 0.1, (2, 50))
COLUMNS = {"bits_per_dim": VALUES[0], "log_prob_z": VALUES[1]}


def read(folder: Path, content: bytes, images: int = 50, sha256: str | None = "", shift: float = 0.0):
    """Read a table as that of a record with the means of `COLUMNS`; its hash is right by default."""
    (folder / "images.csv").write_bytes(content)
    means = {name: float(values.mean()) + shift for name, values in COLUMNS.items()}
    digest = hashlib.sha256(content).hexdigest() if sha256 == "" else sha256
    return read_image_table(folder / "images.csv", folder / "metrics.json", means, images, digest, "acf evaluate")


def test_a_table_is_read_as_it_was_written(tmp_path):
    found = read(tmp_path, image_table(COLUMNS))
    assert list(found) == list(COLUMNS)
    for name, values in COLUMNS.items():
        assert np.array_equal(found[name], values)


def test_a_table_that_does_not_belong_to_its_record_is_refused(tmp_path):
    content = image_table(COLUMNS)
    lines = content.decode().splitlines(keepends=True)
    other = {"bits_per_dim": VALUES[0], "log_prob_z": VALUES[1] + 1e-6}
    wrong = {
        "of another evaluation": {"content": content.replace(b"1", b"2", 1), "sha256": "0" * 64},
        "no hash of a table stands there": {"content": content, "sha256": None},
        "49 images instead of 50": {"content": "".join(lines[:-1]).encode()},
        "50 images instead of 297": {"content": content, "images": 297},
        "0 images instead of 50": {"content": lines[0].encode()},
        "not numbered in order": {"content": "".join([lines[0], *lines[2:], lines[1]]).encode()},
        "its columns are image,log_prob_z,bits_per_dim": {"content": image_table(dict(reversed(COLUMNS.items())))},
        "its columns are ;": {"content": b""},
        "a value is no number": {"content": image_table(COLUMNS | {"log_prob_z": VALUES[1] * np.inf})},
        "the means of log_prob_z differ by 1.0e-06": {"content": image_table(other)},
        "the means of bits_per_dim differ": {"content": content, "shift": 2e-9},
        "could not convert": {"content": content.replace(b"\n7,", b"\nseven,")},
        "columns": {"content": content.replace(b"\n7,", b"\n7,1.0,")},
        "codec can't decode": {"content": b"\xff" + content},
    }
    for said, arguments in wrong.items():
        with pytest.raises(AcfError) as caught:
            read(tmp_path, **arguments)
        message = str(caught.value)
        assert said in message
        assert message.startswith(f"{tmp_path / 'images.csv'} does not belong to {tmp_path / 'metrics.json'}: ")
        assert message.endswith("; run: acf evaluate")
        assert "\n" not in message
    (tmp_path / "images.csv").unlink()
    with pytest.raises(AcfError, match=r"images\.csv cannot be read: No such file.*; run: acf evaluate"):
        read_image_table(tmp_path / "images.csv", tmp_path, {}, 50, "", "acf evaluate")


def test_a_changed_table_is_not_used_and_its_command_is_named(project):
    path = project / "analyses/digits/acf-l2/seed0/images.csv"
    sound = path.read_bytes()
    for content in (sound[:-1], sound.replace(b"2.", b"3.", 1), b""):
        path.write_bytes(content)
        found = read_results(Project(project), "digits")
        assert found.metrics["acf-l2"] == []
        (absent,) = found.absent
        assert "images.csv does not belong to" in absent.why
        assert absent.why.endswith("; run: acf evaluate --experiment digits --variant acf-l2 --seed 0")


def test_without_the_baselines_table_there_is_no_report(project):
    path = project / "analyses/digits/baselines.csv"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        AcfError, match=r"baselines\.csv does not belong to .*; run: acf baselines --experiment digits$"
    ):
        read_results(Project(project), "digits")


def test_fifty_thousand_images_are_no_trouble(tmp_path):
    columns = {"bits_per_dim": np.random.default_rng(0).normal(3, 0.5, 50_000)}
    (tmp_path / "images.csv").write_bytes(content := image_table(columns))
    means, digest = {"bits_per_dim": float(columns["bits_per_dim"].mean())}, hashlib.sha256(content).hexdigest()
    found = read_image_table(tmp_path / "images.csv", tmp_path, means, 50_000, digest, "")
    assert np.array_equal(found["bits_per_dim"], columns["bits_per_dim"])
    assert len(content) < 2e6
