"""The stage `report`: what it writes, that the page needs nothing else, and what it says when inputs are missing."""

import csv
import errno
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from PIL import Image

from acf.errors import AcfError, ConfigError, UnwritableError
from acf.stages.report import report

ATTRIBUTES_THAT_LOAD = ("src", "srcset", "data", "poster", "action", "background")


class Page(HTMLParser):
    """Tags with attributes, and the cells of each table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.tables: list[list[list[str]]] = []
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data):
        if self._cell:
            self.tables[-1][-1][-1] += data


@pytest.fixture
def page(project):
    report("digits", project)
    return Page((project / "reports/digits/index.html").read_text())


def test_the_page_loads_nothing_from_elsewhere(page, project):
    images = 0
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed")
        for name in ATTRIBUTES_THAT_LOAD:
            if name in attributes:
                assert attributes[name].startswith("data:image/png;base64,")
                images += 1
        if tag == "a":
            assert attributes["href"].startswith(("#", "https://arxiv.org/abs/"))
    assert images == 4 + 2 * 3 + (1 + 3)
    text = (project / "reports/digits/index.html").read_text()
    assert not re.search(r"url\(|@import", text)


def test_every_link_within_the_page_has_its_target(page):
    targets = {attributes.get("id") for _, attributes in page.tags}
    links = [attributes["href"][1:] for tag, attributes in page.tags if tag == "a" and attributes["href"][0] == "#"]
    assert len(links) == 7
    assert set(links) <= targets


def test_the_page_holds_the_numbers_of_the_files(page):
    rows = {row[0]: row for row in page.tables[0]}
    assert rows["uniform"][1] == "4.0875 ± 0"
    assert rows["gaussian"][1:5] == ["2.235 ± 0.035", "—", "—", "—"]
    assert rows["acf-l2"] == [
        *("acf-l2", "1.930 ± 0.012", "—", "0.305 ± 0.023", "0.1100 ± 0.0032", "0.1027 to 0.1173"),
        *("84,600", "0.9700", "1.3e−6", "93 s", "800"),
        *("5.250", "−7.407", "4.087", "370", "cpu, Imaginary Processor 9000, 2 threads"),
    ]
    assert page.tables[1][1] == ["resflow", "0.9700", "scale1.block3", "14", "0.9000"]
    recipes = [row[-2:] for row in page.tables[2][1:]]
    assert recipes == [["fedcba9876543210", "0123456789abcde0"]] * 3


def test_names_are_escaped(project):
    path = project / "results/digits/acf-l2/seed0/metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"device": "<script>alert(1)</script>"}))
    report("digits", project)
    assert "<script>" not in (project / "reports/digits/index.html").read_text()


def test_tables_keep_full_precision(project):
    report("digits", project)
    with (project / "reports/digits/table.csv").open(newline="") as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    assert float(rows["gaussian"]["bits_per_dim"]) == 2.23456789
    assert float(rows["acf-dot"]["log_abs_det"]) == 2.03 - 9.33746284
    assert (rows["gaussian"]["certificate"], rows["gaussian"]["parameters"]) == ("", "2144")
    markdown = (project / "reports/digits/table.md").read_text()
    assert "| acf-l2 | 1.930 ± 0.012 | — | 0.305 ± 0.023 | 0.1100 ± 0.0032 | 0.1027 to 0.1173 | 84,600 |" in markdown
    assert "The standard error is over test images" in markdown


def test_small_pictures_are_enlarged_pixel_by_pixel(project):
    report("digits", project)
    with (
        Image.open(project / "samples/digits/acf-l2/seed0/samples.png") as small,
        Image.open(project / "reports/digits/figures/samples-acf-l2.png") as large,
    ):
        assert large.size == (512, 512)
        assert large.resize(small.size, Image.Resampling.NEAREST).tobytes() == small.tobytes()
        assert large.getpixel((7, 7)) == small.getpixel((0, 0))


def test_a_second_report_is_the_same_and_leaves_nothing_old(project):
    report("digits", project)
    folder = project / "reports/digits"
    first = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / "figures/samples-gone.png").write_bytes(b"")
    report("digits", project)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == first


def test_several_seeds_make_a_report(project_of_three_seeds):
    report("digits", project_of_three_seeds)
    page = Page((project_of_three_seeds / "reports/digits/index.html").read_text())
    assert page.tables[0][4][:2] == ["resflow", "2.0500 ± 0.0058"]
    assert len(page.tables[2]) == 1 + 9


def test_the_terminal_shows_the_table_and_the_path(project, capsys):
    report("digits", project)
    out = capsys.readouterr().out
    assert "1.930 ± 0.012" in out
    assert "acf-l2 is better than resflow" in out
    assert str(project / "reports/digits/index.html") in out


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("results/digits/baselines.json", "acf baselines --experiment digits"),
        ("results/digits/acf-l2/seed0/metrics.json", "acf evaluate --experiment digits --variant acf-l2 --seed 0"),
        ("analyses/digits/baselines.csv", "acf baselines --experiment digits"),
        ("analyses/digits/acf-l2/seed0/images.csv", "acf evaluate --experiment digits --variant acf-l2 --seed 0"),
        ("models/digits/acf-dot/seed0/history.csv", "acf train --experiment digits --variant acf-dot --seed 0"),
        ("samples/digits/resflow/seed0/samples.png", "acf sample --experiment digits --variant resflow --seed 0"),
    ],
)
def test_a_missing_file_is_named_with_its_command(project, file, command):
    (project / file).unlink()
    with pytest.raises(ConfigError) as error:
        report("digits", project)
    assert f"{file}  (made by: {command})" in str(error.value)
    assert str(error.value).count("made by") == 1
    assert not (project / "reports").exists()


def test_many_missing_files_are_not_all_listed(project):
    with pytest.raises(ConfigError, match=r"and 14 more\nall at once: dvc repro report@fashion-mnist"):
        report("fashion-mnist", project)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("results/digits/acf-l2/seed0/metrics.json", "{", "is not JSON"),
        ("results/digits/acf-l2/seed0/metrics.json", "{}", "metrics.json: experiment: Field required"),
        ("results/digits/baselines.json", "{}", "baselines.json: experiment: Field required"),
        ("models/digits/acf-l2/seed0/history.csv", "step,seconds\n1,2\n", "lacks the columns train_bits_per_dim"),
        ("models/digits/acf-l2/seed0/history.csv", "", "it is empty"),
    ],
)
def test_a_malformed_file_is_named(project, file, content, message):
    (project / file).write_text(content)
    with pytest.raises(AcfError, match=message):
        report("digits", project)


def test_an_unknown_experiment_is_refused(project):
    with pytest.raises(ConfigError, match="no experiment 'mnist'"):
        report("mnist", project)


def content_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["samples.png", "reconstructions.png"])
def test_a_damaged_picture_is_named_and_the_earlier_report_stays(project, name):
    report("digits", project)
    before = content_of(project / "reports")
    path = project / "samples/digits/acf-dot/seed0" / name
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1  # among the pixels
    for damage in (b"", whole[: len(whole) // 2], b"GIF89a" + whole, bytes(flipped)):
        path.write_bytes(damage)
        with pytest.raises(AcfError) as error:
            report("digits", project)
        assert str(error.value).startswith(f"{path} is damaged (")
        assert str(error.value).endswith("); run: acf sample --experiment digits --variant acf-dot --seed 0")
        assert content_of(project / "reports") == before


def test_a_report_that_cannot_be_written_leaves_the_earlier_one(project, monkeypatch):
    report("digits", project)
    before = content_of(project / "reports")

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("acf.runs.folders.os.fsync", full)
    with pytest.raises(UnwritableError, match=r"cannot write .*reports/digits/.*: No space left on device; free space"):
        report("digits", project)
    assert content_of(project / "reports") == before
    assert [path.name for path in (project / "reports").iterdir()] == ["digits"]


def test_what_is_in_the_place_of_a_report_is_named(project):
    (project / "reports").write_text("in the way")
    with pytest.raises(UnwritableError, match=r"cannot write .*reports/digits: .*; remove what is in its place"):
        report("digits", project)


def test_a_notebook_and_a_plain_terminal_do_not_matter(project):
    """MPLBACKEND as a notebook leaves it, a matplotlibrc of one's own, and an output that has ASCII only."""
    report("digits", project)
    before = content_of(project / "reports")
    (project / "matplotlibrc").write_text("figure.dpi: 30\naxes.grid: True\nfont.size: 30\n")
    plain = {"PYTHONIOENCODING": "ascii", "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    done = subprocess.run(
        [sys.executable, "-m", "acf.cli", "report", "--experiment", "digits"],
        cwd=project,
        env={**os.environ, **plain},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "1.930 +/- 0.012" in done.stdout
    assert "report: reports/digits/index.html" in done.stdout
    assert content_of(project / "reports") == before
