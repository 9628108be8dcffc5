"""README's tables are generated from the reports and do not go stale."""

import errno
import shutil
import subprocess
from pathlib import Path

import pytest

from acf.errors import AcfError, UnwritableError
from acf.reporting.comparison import parse_comparison
from acf.stages.readme import check_readme, readme_table, tables, write_readme
from acf.stages.report import report
from tests.reporting.conftest import make_project

ROOT = Path(__file__).parents[2]
MARKED = "# Title\n\n<!-- results:digits -->\nold\n<!-- /results -->\n\nText after.\n"


@pytest.fixture(scope="module")
def once_reported(tmp_path_factory):
    project = make_project(tmp_path_factory.mktemp("reported"), [0])
    report("digits", project)
    return project


@pytest.fixture
def reported(once_reported, tmp_path):
    project = shutil.copytree(once_reported, tmp_path / "project")
    (project / "README.md").write_text(MARKED)
    return project


def test_the_table_is_written_between_the_markers_and_nothing_else_changes(reported):
    write_readme(reported)
    text = (reported / "README.md").read_text()
    assert "| acf-l2 | 1.930 ± 0.012 | 0.1100 ± 0.0032 | 84,600 | 0.9700 | 1.3e−6 | 93 s |\n" in text
    assert "| gaussian | 2.235 ± 0.035 | — | 2,144 | — | — | — |\n" in text
    assert text.startswith("# Title\n\n<!-- results:digits -->\n")
    assert text.endswith("<!-- /results -->\n\nText after.\n")
    assert "old" not in text
    check_readme(reported)


def test_a_second_time_changes_nothing(reported):
    write_readme(reported)
    text = (reported / "README.md").read_text()
    write_readme(reported)
    assert (reported / "README.md").read_text() == text


def test_a_stale_table_is_found(reported):
    with pytest.raises(AcfError, match="results of digits are not those"):
        check_readme(reported)
    write_readme(reported)
    path = reported / "README.md"
    path.write_text(path.read_text().replace("1.930", "1.830"))
    with pytest.raises(AcfError, match="results of digits are not those"):
        check_readme(reported)


def test_a_missing_report_is_named(reported):
    path = reported / "README.md"
    path.write_text(MARKED.replace("digits", "fashion-mnist"))
    for function in (write_readme, check_readme):
        with pytest.raises(AcfError, match=r"fashion-mnist/table\.csv is missing; run: dvc repro"):
            function(reported)


def test_a_readme_without_markers_is_refused(reported):
    (reported / "README.md").write_text("# Title\n")
    with pytest.raises(AcfError, match="has no results table"):
        check_readme(reported)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MARKED.replace("<!-- /results -->", "") + MARKED, "the results of digits do not end"),
        (MARKED + "<!-- /results -->\n", "a marker of results without a partner"),
        (MARKED + "<!-- results:digits -->\n", "a marker of results without a partner"),
    ],
)
def test_text_between_a_marker_without_end_and_the_next_one_is_not_lost(reported, text, said):
    (reported / "README.md").write_text(text)
    for function in (write_readme, check_readme):
        with pytest.raises(AcfError, match=said):
            function(reported)
    assert (reported / "README.md").read_text() == text


def test_every_table_of_an_experiment_is_checked(reported):
    (reported / "README.md").write_text(MARKED + MARKED)
    write_readme(reported)
    check_readme(reported)
    text = (reported / "README.md").read_text()
    (reported / "README.md").write_text(text.replace("1.930", "1.830", 1))
    with pytest.raises(AcfError, match="results of digits are not those"):
        check_readme(reported)


def test_a_readme_that_cannot_be_read_or_written_is_named(reported, monkeypatch):
    path = reported / "README.md"

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("acf.runs.files.os.fsync", full)
        with pytest.raises(UnwritableError, match=r"cannot write .*README\.md: No space left on device; free space"):
            write_readme(reported)
    assert path.read_text() == MARKED
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(AcfError, match=r"README\.md is not UTF-8 text"):
        check_readme(reported)
    path.unlink()
    with pytest.raises(AcfError, match=r"README\.md cannot be read: No such file.*in the top folder of the project"):
        write_readme(reported)


def test_the_committed_readme_shows_the_committed_results():
    """Against HEAD, not the working tree: a rerun that rewrites reports/ must not make the tests fail."""
    shown = tables(_committed("README.md"))
    assert shown, "README.md has no results table; see acf.stages.readme for the markers"
    for experiment, table in shown.items():
        place = f"reports/{experiment}/table.csv"
        csv = parse_comparison(_committed(place), place, experiment)
        assert table == readme_table(csv), f"README's results of {experiment} are stale; run: acf readme"


def _committed(path: str) -> str:
    done = subprocess.run(["git", "show", f"HEAD:{path}"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"{path} is not in the last commit: {done.stderr.strip()}")
    return done.stdout
