"""The stage `report`: what it writes, that the page needs nothing else, and what it says when inputs are missing."""

import csv
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from PIL import Image

from acf.errors import AcfError, ConfigError, UnwritableError
from acf.registry import ANALYSES
from acf.reporting.style import looks
from acf.stages.analysis_sections import analysis_sections
from acf.stages.index import index
from acf.stages.project import Project
from acf.stages.report import report
from acf.stages.sample_sections import sampled_sections
from tests.reporting.conftest import make_project

ATTRIBUTES_THAT_LOAD = ("src", "srcset", "data", "poster", "action", "background")


class Page(HTMLParser):
    """Tags with attributes, and the cells of each table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.tables: list[list[list[str]]] = []
        self.captions: list[str] = []
        self._cell = False
        self._caption = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
        elif tag == "caption":
            self.captions.append("")
            self._caption = True
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._cell = False
        if tag == "caption":
            self._caption = False

    def handle_data(self, data):
        if self._caption:
            self.captions[-1] += data
        if self._cell:
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A project with a report, which tests only read."""
    root = make_project(tmp_path_factory.mktemp("reported"), [0])
    report("digits", root)
    return root


@pytest.fixture(scope="module")
def page(reported):
    return Page((reported / "reports/digits/index.html").read_text())


def test_the_page_loads_nothing_from_elsewhere(page, reported):
    images = []
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed")
        for name in ATTRIBUTES_THAT_LOAD:
            if name in attributes:
                assert re.match(r"data:image/(png|svg\+xml);base64,", attributes[name])
                images.append(attributes["alt"])
        if tag == "a":
            href = attributes["href"]
            beside = href.startswith("figures/") and (reported / "reports/digits" / href).is_file()
            assert beside or href.startswith(("#", "data:text/", "data:application/x-tex", "https://arxiv.org/abs/"))
    assert len(images) == len(set(images)) == len(list((reported / "reports/digits/figures").glob("*.png"))) > 20
    assert all(images)
    text = (reported / "reports/digits/index.html").read_text()
    assert not re.search(r"url\(|@import|fetch\(|import\(", text)


def test_every_link_within_the_page_has_its_target(page):
    targets = {attributes.get("id") for _, attributes in page.tags}
    links = [attributes["href"][1:] for tag, attributes in page.tags if tag == "a" and attributes["href"][0] == "#"]
    assert len(links) > 7
    assert set(links) <= targets


def table_of(page, caption):
    """Rows by their first cell, as heading to text."""
    found = page.tables[next(n for n, text in enumerate(page.captions) if caption in text)]
    return [dict(zip(found[0], row, strict=True)) for row in found[1:]]


def test_the_page_holds_the_numbers_of_the_files(page):
    rows = {row["model"]: row for row in table_of(page, "lower is better")}
    assert rows["uniform"]["bits/dim"] == "4.0875 ± 0"
    said = {"bits/dim": "2.235 ± 0.035", "gain": "—", "parameters": "2,144", "certificate": "—"}
    assert said.items() <= rows["gaussian"].items()
    said = {"bits/dim": "1.930 ± 0.012", "parameters": "84,600", "certificate": "0.9700"}
    assert said.items() <= rows["acf-l2"].items()
    said = {"reconstruction error": "1.3e−6", "training time": "2.7 min", "gain over base": "0.1100 ± 0.0032"}
    assert said.items() <= rows["acf-l2"].items()
    parts = {row["model"]: row for row in table_of(page, "parts of bits/dim")}["acf-l2"]
    assert (parts["log p(z)"], parts["log-determinant"], parts["dequantisation"]) == ("5.250", "−7.407", "4.087")
    assert parts["steps"] == "800"
    assert parts["device"] == "cpu, Imaginary Processor 9000, 2 threads"
    bounds = table_of(page, "Proven bounds")[0]
    assert list(bounds.values()) == ["resflow", "0.9700", "scale1.block3", "14", "0.9000"]


def test_every_number_says_how_it_was_made(page, reported):
    recipes = [
        (r["recipe of training"], r["recipe of evaluation"]) for r in table_of(page, "Trainings and evaluations")
    ]
    assert recipes == [("fedcba9876543210", "0123456789abcde0")] * 3
    machines = {row["machine"]: row for row in table_of(page, "Machines")}
    run = table_of(page, "Trainings and evaluations")[0]
    assert machines[run["evaluated on"]]["versions"] == "acf 0.1.0, torch 2.13.0"
    assert machines[run["trained on"]]["versions"] == "not available"  # the record of these models has none
    assert machines[run["trained on"]]["device"] == "cpu, Imaginary Processor 9000, 2 threads"
    text = (reported / "reports/digits/index.html").read_text()
    for run in ("resflow", "acf-l2", "acf-dot"):
        for stage in ("train", "evaluate", "sample", *ANALYSES):
            assert f"acf {stage} --experiment digits --variant {run} --seed 0\n" in text
    assert "commit not available" in text


@pytest.mark.usefixtures("undrawn")
def test_names_are_escaped(project):
    path = project / "results/digits/acf-l2/seed0/metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"device": "<script>alert(1)</script>"}))
    report("digits", project)
    assert "<script>alert" not in (project / "reports/digits/index.html").read_text()


def test_tables_keep_full_precision(reported):
    project = reported
    with (project / "reports/digits/table.csv").open(newline="") as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    assert float(rows["gaussian"]["bits_per_dim"]) == 2.23456789
    assert float(rows["acf-dot"]["log_abs_det"]) == 2.03 - 9.33746284
    assert (rows["gaussian"]["certificate"], rows["gaussian"]["parameters"]) == ("", "2144")
    markdown = (project / "reports/digits/table.md").read_text()
    assert "| acf-l2 | 1.930 ± 0.012 | — | 0.305 ± 0.023 | 0.1100 ± 0.0032 | 0.1027 to 0.1173 | 84,600 |" in markdown
    assert "The standard error is over test images" in markdown


def test_small_pictures_are_enlarged_pixel_by_pixel(reported):
    project = reported
    with (
        Image.open(project / "samples/digits/acf-l2/seed0/samples.png") as small,
        Image.open(project / "reports/digits/figures/samples-acf-l2.png") as large,
    ):
        assert large.size == (512, 512)
        assert large.resize(small.size, Image.Resampling.NEAREST).tobytes() == small.tobytes()
        assert large.getpixel((7, 7)) == small.getpixel((0, 0))


def test_a_second_report_is_the_same_and_leaves_nothing_old(reported, tmp_path):
    project = shutil.copytree(reported, tmp_path / "project")
    folder = project / "reports/digits"
    first = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / "figures/samples-gone.png").write_bytes(b"")
    report("digits", project)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == first


@pytest.mark.usefixtures("undrawn")
def test_several_seeds_make_a_report(project_of_three_seeds):
    report("digits", project_of_three_seeds)
    page = Page((project_of_three_seeds / "reports/digits/index.html").read_text())
    assert page.tables[0][4][:2] == ["resflow", "2.0500 ± 0.0058"]
    assert len(table_of(page, "Trainings and evaluations")) == 9


@pytest.mark.usefixtures("undrawn")
def test_the_terminal_shows_the_table_and_the_path(project, capsys):
    report("digits", project)
    out = capsys.readouterr().out
    assert "1.930 ± 0.012" in out
    assert "acf-l2 is better than resflow" in out
    assert str(project / "reports/digits/index.html") in out


OPTIONS = "--experiment digits --variant acf-l2 --seed 0"


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("models/digits/acf-l2/seed0/history.csv", f"not trained; run: acf train {OPTIONS}"),
        ("models/digits/acf-l2/seed0/config.json", f"not trained; run: acf train {OPTIONS}"),
        ("results/digits/acf-l2/seed0/metrics.json", f"not evaluated; run: acf evaluate {OPTIONS}"),
        ("analyses/digits/acf-l2/seed0/images.csv", f"not evaluated; run: acf evaluate {OPTIONS}"),
    ],
)
def test_a_variant_that_is_not_measured_shows_as_such(project, capsys, file, said):
    (project / file).unlink()
    report("digits", project)
    page = Page((project / "reports/digits/index.html").read_text())
    rows = {row[0]: row[1:] for row in page.tables[0]}
    assert rows["acf-l2"] == [said]
    assert rows["resflow"][0] == "2.040 ± 0.012"
    assert said in capsys.readouterr().out
    with (project / "reports/digits/table.csv").open(newline="") as table:
        assert [row["row"] for row in csv.DictReader(table)][3:] == ["resflow", "acf-dot"]
    for ending in ("md", "tex"):
        line = next(x for x in (project / f"reports/digits/table.{ending}").read_text().splitlines() if "acf-l2" in x)
        assert said.partition(";")[0] in line
    index(project)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("results/digits/acf-l2/seed0/metrics.json", "{", "is not JSON"),
        ("results/digits/acf-l2/seed0/metrics.json", "{}", "metrics.json: experiment: Field required"),
        (
            "models/digits/acf-l2/seed0/history.csv",
            "step,seconds\n1,2\n",
            "lacks the columns images, train_bits_per_dim",
        ),
        ("models/digits/acf-l2/seed0/history.csv", "", "it is empty"),
        ("models/digits/acf-l2/seed0/config.json", "{", "config.json is not JSON"),
    ],
)
def test_a_damaged_file_is_named_in_the_row_of_its_variant(project, capsys, file, content, said):
    (project / file).write_text(content)
    report("digits", project)
    page = Page((project / "reports/digits/index.html").read_text())
    rows = {row[0]: row[1:] for row in page.tables[0]}
    assert rows["acf-l2"][0].startswith("damaged: ")
    assert said in rows["acf-l2"][0]
    assert said in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn")
def test_of_several_seeds_those_that_are_there_count(project_of_three_seeds):
    root = project_of_three_seeds
    (root / "results/digits/resflow/seed2/metrics.json").unlink()
    report("digits", root)
    page = Page((root / "reports/digits/index.html").read_text())
    assert page.tables[0][4][:2] == ["resflow", "2.0450 ± 0.0050"]  # of 2.04 and 2.05
    run = "--experiment digits --variant resflow --seed 2"
    assert page.tables[0][-1] == ["resflow, seed 2", f"not evaluated; run: acf evaluate {run}"]


@pytest.mark.usefixtures("undrawn")
def test_a_report_on_baselines_alone(project):
    for folder in ("models", "samples"):
        shutil.rmtree(project / folder)
    report("digits", project)
    page = Page((project / "reports/digits/index.html").read_text())
    assert [row[0] for row in page.tables[0][1:]] == [
        "uniform",
        "histogram",
        "gaussian",
        "resflow",
        "acf-l2",
        "acf-dot",
    ]
    index(project)
    assert "none yet" in (project / "reports/index.html").read_text()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("analysis", ANALYSES)
@pytest.mark.parametrize("variant", ["resflow", "acf-l2", None])
def test_an_analysis_that_is_missing_is_named_in_its_section(project, analysis, variant):
    """Also that of the base with which others are compared, and of all variants."""
    for name in ("resflow", "acf-l2", "acf-dot") if variant is None else (variant,):
        (project / f"analyses/digits/{name}/seed0/{analysis}.json").unlink()
    bases = {"resflow": None, "acf-l2": "resflow", "acf-dot": "resflow"}
    found = analysis_sections(Project(project), "digits", bases, looks(list(bases)))
    section = found.sections[list(ANALYSES).index(analysis)]
    name = variant or "acf-dot"
    said = f"{name}, seed 0: not analysed; run: acf {analysis} --experiment digits --variant {name} --seed 0."
    assert said in section.notes
    assert len(found.absent) == (3 if variant is None else 1)


def test_nothing_at_all_is_an_error_with_the_commands(project):
    with pytest.raises(ConfigError, match=r"and \d\d more\nall at once: dvc repro report@fashion-mnist") as error:
        report("fashion-mnist", project)
    assert "results/fashion-mnist/baselines.json  (made by: acf baselines --experiment fashion-mnist)" in str(
        error.value
    )
    assert not (project / "reports").exists()


def test_baselines_that_are_damaged_are_an_error(project):
    (project / "results/digits/baselines.json").write_text("{}")
    with pytest.raises(AcfError, match=r"baselines\.json: experiment: Field required"):
        report("digits", project)


def test_an_unknown_experiment_is_refused(project):
    with pytest.raises(ConfigError, match="no experiment 'mnist'"):
        report("mnist", project)


def content_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_picture_that_is_damaged_or_missing_is_named(project):
    path = project / "samples/digits/acf-dot/seed0/samples.png"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1  # among the pixels
    for damage in (b"", whole[: len(whole) // 2], b"GIF89a" + whole, bytes(flipped), None):
        path.unlink(missing_ok=True)
        if damage is not None:
            path.write_bytes(damage)
        sections, absent = sampled_sections(Project(project), "digits")
        assert [figure.caption for figure in sections[0].figures] == ["resflow", "acf-l2"]
        said = "is damaged (" if damage is not None else "cannot be read: No such file"
        assert said in sections[0].notes[-1]
        assert sections[0].notes[-1].startswith("acf-dot, seed 0: damaged: ")
        assert sections[0].notes[-1].endswith("run: acf sample --experiment digits --variant acf-dot --seed 0.")
        assert [one.run.variant for one in absent] == ["acf-dot"]


@pytest.mark.usefixtures("undrawn")
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


@pytest.mark.usefixtures("undrawn")
def test_what_is_in_the_place_of_a_report_is_named(project):
    (project / "reports").write_text("in the way")
    with pytest.raises(UnwritableError, match=r"cannot write .*reports/digits: .*; remove what is in its place"):
        report("digits", project)


@pytest.mark.slow  # a whole report, drawn by another process
def test_a_notebook_and_a_plain_terminal_do_not_matter(reported, tmp_path):
    """MPLBACKEND as a notebook leaves it, a matplotlibrc of one's own, and an output that has ASCII only."""
    project = shutil.copytree(reported, tmp_path / "project")
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
