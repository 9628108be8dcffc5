"""What README and docs/results.md say of results is generated from the reports and does not go stale."""

import errno
import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from acf.errors import AcfError, UnwritableError
from acf.reporting.findings.topics import TOPICS
from acf.stages.readme import SECTION, check_readme, write_readme
from acf.stages.report import report
from tests.reporting.conftest import make_project
from tests.undrawn import leave_out_figures

ROOT = Path(__file__).parents[2]
MARKED = "# Title\n\n<!-- results:digits -->\nold\n<!-- /results -->\n\nText after.\n"


@pytest.fixture(scope="module")
def once_reported(tmp_path_factory):
    project = make_project(tmp_path_factory.mktemp("reported"), [0])
    with pytest.MonkeyPatch.context() as patched:
        leave_out_figures(patched)
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
    assert "| acf-l2 | 1.930 ± 0.012 | 0.1100 ± 0.0032 | 84,600 | 0.9700 | 1.3e−6 | 2.7 min |\n" in text
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


OTHER_TRAININGS = {
    "summaries/digits.json": lambda text: text.replace('"bits_per_dim": 1.', '"bits_per_dim": 2.', 1),
    "curves/digits.csv": lambda text: "".join(text.splitlines(keepends=True)[:-1]),
}


@pytest.mark.parametrize("path", OTHER_TRAININGS)
def test_files_of_other_trainings_than_the_report_are_found(reported, path):
    (reported / "README.md").write_text(MARKED + "\n<!-- findings:certificates -->\n<!-- /findings -->\n")
    write_readme(reported)
    text = (reported / path).read_text()
    (reported / path).write_text(OTHER_TRAININGS[path](text))
    assert (reported / path).read_text() != text
    for function in (write_readme, check_readme):
        with pytest.raises(AcfError, match=rf"{path} is of other trainings than the report of digits; run: acf report"):
            function(reported)


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


@pytest.fixture
def with_findings(reported):
    """Also a page on all experiments, with every topic."""
    (reported / "docs").mkdir()
    marked = "".join(f"## {topic}\n\n<!-- findings:{topic} -->\nold\n<!-- /findings -->\n\n" for topic in TOPICS)
    (reported / "docs/results.md").write_text(f"# Findings\n\n{marked}Text after.\n")
    return reported


def topics_of(project):
    return {found["name"]: found["text"] for found in SECTION.finditer((project / "docs/results.md").read_text())}


def test_the_page_on_all_experiments_is_written_beside_the_readme(with_findings):
    write_readme(with_findings)
    said = topics_of(with_findings)
    assert list(said) == list(TOPICS)
    assert all("old" not in text for text in said.values())
    assert (with_findings / "docs/results.md").read_text().endswith("<!-- /findings -->\n\nText after.\n")
    assert "| `digits` | acf-l2 | resflow | 0.1100 ± 0.0032 | 0.1027 to 0.1173 | lower |" in said["bits-per-dim"]
    assert "| `digits` | digits | 3 of 3 | 800 | 297 | 4 | cpu, Imaginary" in said["experiments"]
    assert "all 3 trained flows" in said["certificates"]
    check_readme(with_findings)


def test_an_experiment_without_results_is_not_available(with_findings):
    write_readme(with_findings)
    row = next(line for line in topics_of(with_findings)["experiments"].splitlines() if "fashion" in line)
    assert "| 0 of 3 |" in row
    assert "| not available | none: `dvc repro report@fashion-mnist` |" in row
    shutil.rmtree(with_findings / "reports")
    (with_findings / "README.md").write_text("<!-- findings:answers -->\n<!-- /findings -->\n")
    write_readme(with_findings)
    for topic, text in topics_of(with_findings).items():
        assert "ot available" in text, topic


def test_an_experiment_that_does_not_count_leaves_no_trace_on_the_pages(with_findings):
    write_readme(with_findings)
    before = {path: (with_findings / path).read_text() for path in ("README.md", "docs/results.md")}
    settings = yaml.safe_load((with_findings / "params.yaml").read_text())
    trial = settings["experiments"]["digits"] | {"reporting": {"counted": False}}
    settings["experiments"] |= {"digits-trial": trial}
    (with_findings / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    shutil.copytree(with_findings / "reports/digits", with_findings / "reports/digits-trial")
    write_readme(with_findings)
    assert {path: (with_findings / path).read_text() for path in before} == before


def test_a_report_of_earlier_code_has_no_findings_and_the_page_says_what_makes_them(with_findings):
    (with_findings / "reports/digits/findings.json").unlink()
    write_readme(with_findings)
    said = topics_of(with_findings)
    command = "- `digits`, all variants: not available; run: `acf report --experiment digits`"
    assert all(command in said[topic] for topic in ("noise", "interpolation", "samples"))
    assert "acf-l2 | resflow | 0.1100" in said["bits-per-dim"]


@pytest.mark.parametrize("file", ["reports/digits/findings.json", "curves/digits.csv"])
def test_a_stale_or_damaged_source_is_found(with_findings, file):
    write_readme(with_findings)
    path = with_findings / file
    whole = path.read_text()
    path.write_text(
        whole.replace('"gain": ', '"gain": 1')
        if path.suffix == ".json"
        else whole.replace("digits,acf-l2", "mnist,acf-l2")
    )
    before = (with_findings / "docs/results.md").read_text()
    for function in (write_readme, check_readme):
        with pytest.raises(AcfError, match=rf"{path.name}.*run: acf report --experiment digits"):
            function(with_findings)
    assert (with_findings / "docs/results.md").read_text() == before


def test_a_stale_topic_and_an_unknown_one_are_named(with_findings):
    write_readme(with_findings)
    path = with_findings / "docs/results.md"
    text = path.read_text()
    path.write_text(text.replace("0.1100", "0.2100"))
    with pytest.raises(
        AcfError,
        match=r"results\.md: the results of answers, bits-per-dim, matched-seconds, along-training are not those",
    ):
        check_readme(with_findings)
    path.write_text(text.replace("findings:noise -->", "findings:noises -->"))
    with pytest.raises(AcfError, match=r"results\.md: no topic 'noises' of findings; there are: answers, "):
        write_readme(with_findings)


def test_the_committed_pages_show_the_committed_results(tmp_path):
    """Against HEAD, not the working tree: a rerun that rewrites reports/ must not make the tests fail."""
    pages = ["README.md", "docs/results.md"]
    sources = ["params.yaml", "curves", "reports/*/table.csv", "reports/*/findings.json"]
    listed = _git("ls-tree", "-r", "--name-only", "HEAD").decode().splitlines()
    wanted = [path for path in listed if any(Path(path).match(each) or path.startswith("curves/") for each in sources)]
    archive = _git("archive", "--format=tar", "HEAD", *pages, *wanted)
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(tmp_path, filter="data")
    assert all(SECTION.search((tmp_path / page).read_text()) for page in pages), "a page has no generated part"
    check_readme(tmp_path)


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        pytest.fail(f"git {arguments[0]}: {done.stderr.decode().strip()}")
    return done.stdout
