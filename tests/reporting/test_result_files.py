"""Result files are accepted as the stages write them or refused in one sentence; nothing that is no number is."""

import json
import math
import random
from pathlib import Path

import pandas as pd
import pytest

from acf.errors import AcfError
from acf.reporting.comparison import comparison, parse_comparison, read_comparison
from acf.reporting.result_files import require_form
from acf.reporting.schemas import Baselines, Metrics
from acf.reporting.verdict import notes, verdict
from acf.reporting.wording import FULL, markdown, with_error
from acf.stages.index import index
from acf.stages.project import Project
from acf.stages.readme import check_readme, write_readme
from acf.stages.report import read_results, report

METRICS = "results/digits/acf-l2/seed0/metrics.json"
BASELINES = "results/digits/baselines.json"
HISTORY = "models/digits/acf-l2/seed0/history.csv"
COMMANDS = {METRICS: "acf evaluate --experiment digits --variant acf-l2 --seed 0"} | {
    BASELINES: "acf baselines --experiment digits",
    HISTORY: "acf train --experiment digits --variant acf-l2 --seed 0",
}


def refusal(project: Path) -> str:
    """Return why a run is not in the results, or why there are none; "" if all are."""
    try:
        results = read_results(Project(project), "digits")
    except AcfError as error:
        return str(error)
    why = [one.why.removeprefix("damaged: ") for one in results.absent]
    assert len(why) + len(results.runs) == 3
    assert len(why) <= 1
    return "".join(why)


def refused(project: Path, file: str) -> str:
    message = refusal(project)
    assert str(project / file) in message
    assert message.endswith(f"run: {COMMANDS[file]}")
    assert "\n" not in message
    return message


def numbers(content: object, path: tuple = ()) -> list[tuple]:
    """Places of all numbers in a JSON file."""
    if isinstance(content, dict):
        return [place for key, value in content.items() for place in numbers(value, (*path, key))]
    if isinstance(content, list):
        return [place for key, value in enumerate(content) for place in numbers(value, (*path, key))]
    return [path] if isinstance(content, int | float) else []


def put(content: dict, place: tuple, value: object) -> dict:
    changed = json.loads(json.dumps(content))
    at = changed
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    return changed


@pytest.mark.parametrize(("file", "schema"), [(METRICS, Metrics), (BASELINES, Baselines)])
def test_every_number_has_to_be_finite_and_a_number(project, file, schema):
    content = json.loads((project / file).read_text())
    places = numbers(content)
    assert len(places) > 6
    for place in places:
        for wrong in (math.nan, math.inf, -math.inf, 1e300, "1.5", None, [], True):
            if place[0] == "estimator" and wrong in ("1.5", None, True):
                continue  # settings may be words
            if place[-1] == "bits_per_dim_se_draws" and wrong is None:
                continue  # one draw
            with pytest.raises(AcfError, match=str(place[0])):
                require_form(put(content, place, wrong), schema, project / file)
    require_form(content, schema, project / file)


@pytest.mark.parametrize(
    ("file", "place", "value"),
    [
        (METRICS, ("bits_per_dim",), math.nan),
        (METRICS, ("bits_per_dim_se",), math.nan),
        (METRICS, ("bits_per_dim_se",), -0.01),
        (METRICS, ("certificate", "blocks", 3, "upper"), math.inf),
        (METRICS, ("certificate", "worst"), 1.0),
        (METRICS, ("test_images",), 0),
        (METRICS, ("reconstruction_error",), -1e-6),
        (METRICS, ("train_seconds",), None),
        (BASELINES, ("baselines", "gaussian", "bits_per_dim_se"), math.nan),
        (BASELINES, ("draws",), 0),
        (METRICS, ("variant",), "resflow"),
        (METRICS, ("seed",), 1),
        (METRICS, ("experiment",), "digits-dense"),
        (METRICS, ("dataset",), "mnist"),
        (BASELINES, ("experiment",), "digits-dense"),
        (BASELINES, ("dataset",), "mnist"),
    ],
)
def test_what_cannot_be_is_refused_with_its_key(project, file, place, value):
    (project / file).write_text(json.dumps(put(json.loads((project / file).read_text()), place, value)))
    assert str(place[-1]) in refused(project, file)


def test_numbers_that_contradict_each_other_are_refused(project):
    content = json.loads((project / METRICS).read_text())
    (project / METRICS).write_text(json.dumps(content | {"bits_per_dim": 1.5}))
    assert "bits_per_dim is 1.5, but its parts add up to" in refused(project, METRICS)
    certificate = content["certificate"] | {"worst": 0.5}
    (project / METRICS).write_text(json.dumps(content | {"certificate": certificate}))
    assert "the worst bound is said to be 0.5" in refused(project, METRICS)


def test_measurements_of_an_earlier_training_are_refused(project):
    config = project / "models/digits/acf-l2/seed0/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"recipe": "0123456789abcdef0123"}))
    assert "is of another training than the model's" in refused(project, METRICS)


@pytest.mark.parametrize("content", [b"", b"\0\xff", b"[]", b"{", b"<<<<<<< HEAD\n{}\n", b"[" * 100_000, b"1" * 5000])
@pytest.mark.parametrize("file", [METRICS, BASELINES, HISTORY])
def test_anything_else_is_refused(project, file, content):
    (project / file).write_bytes(content)
    refused(project, file)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("train_bits_per_dim", "train_bits", "lacks the columns train_bits_per_dim"),
        ("\n20,", "\n10,", "step 10 comes after step 10"),
        ("\n20,", "\nten,", "line 3: step"),
        ("\n20,", "\n20,nan,", "line 3 has 9 cells instead of 8"),
        ("\n20,", "\n=======\n20,", "line 3, is a mark of a merge conflict"),
        ("0.02\n", "nan\n", "validation_se"),
        ("0.02\n", "inf\n", "validation_se"),
    ],
)
def test_a_history_that_cannot_be_is_refused(project, before, after, said):
    text = (project / HISTORY).read_text()
    assert before in text
    (project / HISTORY).write_text(text.replace(before, after, 1))
    assert said in refused(project, HISTORY)


def test_a_variant_with_the_name_of_a_baseline_is_refused(project):
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("acf-dot", "gaussian"))
    with pytest.raises(AcfError, match="variant 'gaussian' has the name of a baseline"):
        report("digits", project)


def test_a_flipped_byte_gives_the_same_report_or_one_sentence(project):
    """Whatever a file is damaged to, every number that is then shown is finite."""
    generator = random.Random(0)
    tried = {"accepted": 0, "refused": 0}
    for file in (METRICS, BASELINES, HISTORY):
        content = (project / file).read_bytes()
        for _ in range(60):
            damaged = bytearray(content)
            damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
            (project / file).write_bytes(damaged)
            if message := refusal(project):
                assert "\n" not in message
                assert str(project / file) in message
                tried["refused"] += 1
                continue
            results = read_results(Project(project), "digits")
            table = comparison(results)
            shown = markdown(table, FULL) + " ".join([*verdict(table, results), *notes(table, results)])
            assert not any(word in shown.lower() for word in (" nan", " inf", "± —"))
            tried["accepted"] += 1
        (project / file).write_bytes(content)
    assert min(tried.values()) > 10


def test_an_unknown_error_is_never_shown_as_zero():
    assert with_error(2.1, math.nan) == "2.1000 ± —"
    assert with_error(2.1, None) == "2.1000 ± —"
    assert with_error(2.1, 1.23e-9) == "2.1000000000 ± 0.0000000012"
    for value, error in ((2.1, math.inf), (2.1, -0.1), (math.inf, 0.1)):
        with pytest.raises(ValueError, match="is no measurement"):
            with_error(value, error)


@pytest.fixture(scope="module")
def table_text(tmp_path_factory) -> str:
    from tests.reporting.conftest import make_project

    root = make_project(tmp_path_factory.mktemp("reported"), [0])
    return comparison(read_results(Project(root), "digits")).to_csv(index=False)


WRONG_TABLES = {
    "conflict": (lambda text: text.replace("\nresflow", "\n<<<<<<< HEAD\nresflow", 1), "mark of a merge conflict"),
    "conflict at the top": (lambda text: "<<<<<<< HEAD\n" + text, "line 1, is a mark of a merge conflict"),
    "empty": (lambda text: "", "it is empty"),
    "no rows": (lambda text: text.splitlines(keepends=True)[0], "has no rows"),
    "only flows": (lambda text: "".join(x for x in text.splitlines(True) if ",baseline," not in x), "has no baselines"),
    "column gone": (lambda text: "".join(x.partition(",")[2] for x in text.splitlines(True)), "lacks the columns row"),
    "column more": (lambda text: text.replace("draws", "draws,extra"), "unknown columns: extra"),
    "cut": (lambda text: text[: len(text) * 2 // 3], "ends in the middle of a line"),
    "row twice": (lambda text: text.replace("acf-dot", "acf-l2"), "several rows of acf-l2"),
    "nan": (lambda text: text.replace("0.0345", "nan"), "line 2: gain_se"),
    "error gone": (lambda text: text.replace("images,0.0345", "images,"), "bits_per_dim_se_images"),
    "quote": (lambda text: text.replace("resflow", '"resflow'), "table.csv"),
}


@pytest.mark.parametrize("wrong", WRONG_TABLES)
def test_a_damaged_table_is_one_sentence_everywhere(project, table_text, wrong):
    damage, said = WRONG_TABLES[wrong]
    path = project / "reports/digits/table.csv"
    path.parent.mkdir(parents=True)
    path.write_text(table_text)
    readme = "<!-- results:digits -->\nold\n<!-- /results -->\n"
    (project / "README.md").write_text(readme)
    commands = [lambda: index(project), lambda: check_readme(project), lambda: write_readme(project)]
    index(project)
    before = (project / "reports/index.html").read_bytes()
    path.write_text(damage(table_text))
    for command in commands:
        with pytest.raises(AcfError) as error:
            command()
        message = str(error.value)
        assert said in message
        assert str(path) in message
        assert message.endswith("run: acf report --experiment digits")
        assert "\n" not in message
    assert (project / "README.md").read_text() == readme
    assert (project / "reports/index.html").read_bytes() == before


def test_binary_garbage_is_no_table(project, table_text):
    path = project / "reports/digits/table.csv"
    path.parent.mkdir(parents=True)
    generator = random.Random(0)
    for _ in range(50):
        path.write_bytes(generator.randbytes(generator.randrange(1, 300)))
        with pytest.raises(AcfError, match="acf report --experiment digits"):
            read_comparison(path, "digits")
    content = table_text.encode()
    for _ in range(200):
        damaged = bytearray(content)
        damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        try:
            shown = markdown(read_comparison(path, "digits"), FULL)
        except AcfError as error:
            shown = str(error)
        if "acf report" in shown:
            assert "\n" not in shown
        else:
            assert not any(word in shown for word in (" nan", " inf", "± —"))


def test_a_table_is_read_as_it_was_written(table_text):
    table = parse_comparison(table_text, "table.csv", "digits")
    assert isinstance(table, pd.DataFrame)
    assert table.to_csv(index=False) == table_text
