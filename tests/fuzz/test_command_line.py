"""Any arguments of `acf` end in success or in one line that says what is wrong; never in a traceback."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import strategies as st

from acf import cli
from acf.errors import TrainingError
from acf.registry import ANALYSES
from acf.training.trainer import Trainer
from tests.conftest import write_study
from tests.fuzz.cases import assert_one_sentence, few_or_many, try_all
from tests.fuzz.finished import no_code

COMMANDS = (
    *("prepare", "train", "evaluate", "baselines", "sample", *ANALYSES, "report", "export"),
    *("index", "readme", "graph"),
    *("data", "list", "verify", "explain", "runs", "prune", "toy"),
)
OPTIONS = (
    *("--dataset", "--experiment", "--variant", "--seed", "--device", "--processes", "--check", "--json", "--help"),
    *("--to", "--licence", "--replace", "--older-than", "--interrupted", "--unknown", "--dry-run", "--yes"),
)
VALUES = (
    *("digits", "mnist", "resflow", "acf-l2", "acf-dot", "glow", "0", "1", "-1", "2", "1.0", "1e3", "010", "٣", "yes"),
    *("9223372036854775807", "9223372036854775808", "18446744073709551616", "9" * 5000, "nan", "", " ", "..", "../.."),
    *("/", "/etc/passwd", ".", "a/b", "a\nb", "a\x1b[1mb", "\udcff", "x" * 300, "x" * 5000, "%s", "{x}", "é", "日本"),
    *("cpu", "cuda", "cuda:0", "cuda:99999999999999999999", "cpu:1", "mps", "meta", "xla", "hpu", "auto", "cpu:-1"),
)
values = st.one_of(
    st.sampled_from(VALUES), st.integers().map(str), st.text(st.characters(exclude_characters="\0"), max_size=9)
)
arguments = st.one_of(st.sampled_from(COMMANDS), st.sampled_from(OPTIONS), values)
NAMED = {
    "prepare": ("dataset",),
    "train": ("experiment", "variant", "seed", "device"),
    "evaluate": ("experiment", "variant", "seed", "device"),
    "sample": ("experiment", "variant", "seed", "device"),
    **{name: ("experiment", "variant", "seed", "device") for name in ANALYSES},
    "baselines": ("experiment",),
    "report": ("experiment",),
    "export": ("experiment", "variant", "seed", "to", "licence"),
    **{f"explain {stage}": ("experiment", "variant", "seed") for stage in ("train", "evaluate", "sample", *ANALYSES)},
    "explain prepare": ("dataset",),
    "explain report": ("experiment",),
    "runs prune": ("older-than",),
}
USUAL = {
    **{"dataset": "digits", "experiment": "digits", "variant": "resflow", "seed": "0"},
    **{"device": "cpu", "older-than": "0", "to": "exported", "licence": "mit"},
}


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with its options, most of which have usual values; or any arguments in any order."""
    if draw(st.integers(0, 3)) == 3:
        return draw(st.lists(arguments, max_size=6))
    command = draw(st.sampled_from(tuple(NAMED)))
    odd = draw(st.sampled_from(NAMED[command]))
    line = command.split()
    for name in NAMED[command]:
        value = draw(values) if name == odd or draw(st.integers(0, 9)) == 9 else USUAL[name]
        line += [f"--{name}={value}"] if draw(st.booleans()) else [f"--{name}", value]
    return line + draw(st.lists(arguments, max_size=1))


def never(*_: object, **__: object) -> NoReturn:
    raise TrainingError("nothing is computed here")


@pytest.fixture
def projects(tmp_path: Path, digits: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Folders to stand in: an empty one, one with settings only, and one with data too."""
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("ACF_MIRROR", str(tmp_path / "mirror"))  # nothing is fetched
    monkeypatch.setenv("HOME", str(tmp_path))  # --install-completion writes there
    monkeypatch.setattr(Trainer, "run", never)
    for module in ("cached", "named_recipes"):
        monkeypatch.setattr(f"acf.stages.{module}.code_hashes", no_code)
    empty = tmp_path / "empty"
    empty.mkdir()
    full = write_study(tmp_path / "full", digits)
    settings = tmp_path / "settings"
    settings.mkdir()
    (settings / "params.yaml").write_bytes((full / "params.yaml").read_bytes())
    return {"empty": empty, "settings": settings, "full": full}


def called(folder: Path, line: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """Call `acf` with these arguments in this process; return exit code, output and messages."""
    out, err = io.StringIO(), io.StringIO()
    with monkeypatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["acf", *line])
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
    assert isinstance(code, int)
    return code, out.getvalue(), err.getvalue()


@few_or_many
def test_any_command_line_is_obeyed_or_refused(
    cases: int, projects: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def holds(case: tuple[str, list[str]]) -> None:
        code, out, err = called(projects[case[0]], case[1], monkeypatch)
        assert code in (0, 1, 2)
        assert "Traceback" not in out + err
        if code == 1:
            first, *more = err.splitlines()
            assert_one_sentence(first)
            assert first.startswith("error: ")
            assert all(line.startswith(("  ", "all at once: ")) for line in more)  # which files of a report are missing

    try_all(cases, st.tuples(st.sampled_from(sorted(projects)), command_lines()), holds)
