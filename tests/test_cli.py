"""The command line: one clear message, exit code 1, no traceback."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from acf.cli import main
from acf.registry import ANALYSES
from acf.runs.signals import NAMES, Interruptible


def run(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "acf.cli", *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


RUN = ("--experiment", "digits", "--variant", "resflow")


def test_help_names_every_stage(tmp_path: Path) -> None:
    out = run(tmp_path, "--help").stdout
    for stage in ("prepare", "train", "evaluate", "baselines", "sample", *ANALYSES, "report", "index"):
        assert stage in out


COMMANDS = [
    ("train", *RUN),
    ("evaluate", *RUN),
    ("sample", *RUN),
    ("export", *RUN, "--to", "exported"),
    *[(name, *RUN) for name in ANALYSES],
    *[(name, *RUN[:2]) for name in ("baselines", "report")],
    *[(name, *option) for name in ("graph", "readme") for option in ((), ("--check",))],
    ("index",),
    ("prepare", "--dataset", "digits"),
    ("data", "verify", "digits"),
]


def in_process(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line in this process, for the sake of time; return its exit code."""
    monkeypatch.setattr("sys.argv", ["acf", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert isinstance(end.value.code, int)
    return end.value.code


Fails = Callable[..., str]


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Fails:
    """Run a command that has to fail, in a folder, with one line; return it."""

    def failing(cwd: Path, *arguments: str) -> str:
        monkeypatch.chdir(cwd)
        code = in_process(monkeypatch, *arguments)
        out, errors = capsys.readouterr()
        assert code == 1, out + errors
        assert errors.startswith("error: ")
        assert len(errors.strip().splitlines()) == 1
        return errors

    return failing


def test_an_error_of_the_program_is_one_line(study: Callable[..., Path]) -> None:
    result = run(study(), "train", "--experiment", "digits", "--variant", "glow")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert result.stderr.startswith("error: ")


def test_outside_a_project_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        assert in_process(monkeypatch, *command) == 1
        message = f"error: no params.yaml in {tmp_path}; run acf in the top folder of a project\n"
        assert capsys.readouterr() == ("", message)
    assert not list(tmp_path.iterdir())


def test_wrong_names_and_missing_files(study: Callable[..., Path], fails: Fails) -> None:
    root = study()
    assert "no variant 'glow'" in fails(root, "train", "--experiment", "digits", "--variant", "glow")
    assert "no experiment 'mnist'" in fails(root, "evaluate", "--experiment", "mnist", "--variant", "resflow")
    assert "acf train" in fails(root, "evaluate", *RUN)
    assert "acf train" in fails(root, "sample", *RUN)
    assert "device 'abacus'" in fails(root, "train", *RUN, "--device", "abacus")


def test_a_bad_key_is_named_with_its_line(study: Callable[..., Path], fails: Fails) -> None:
    root = study()
    text = (root / "params.yaml").read_text().replace("ema_decay", "ema_decaf")
    (root / "params.yaml").write_text(text)
    line = 1 + text.splitlines().index("    ema_decaf: 0.9")
    assert f"params.yaml:{line}: defaults.training.ema_decaf: unknown key" in fails(root, "train", *RUN)


def test_running_out_of_memory_says_what_to_lower(study: Callable[..., Path], fails: Fails) -> None:
    # Weights of more bytes than a process can address.
    root = study(model={"idim": 10**5, "kernels": [1, 101, 1]})
    message = fails(root, "train", *RUN)
    assert "out of memory; lower training.batch_size" in message


def test_nothing_is_written_when_the_folder_is_a_file(study: Callable[..., Path], fails: Fails) -> None:
    root = study()
    (root / "models").write_text("in the way")
    message = fails(root, "train", *RUN)
    assert "models" in message


@pytest.mark.parametrize(("encoding", "plus_minus"), [("ascii", b"\\xb1"), ("latin-1", b"\xb1")])
def test_characters_that_cannot_be_encoded_are_escaped(
    study: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, encoding: str, plus_minus: bytes
) -> None:
    monkeypatch.chdir(study(model={"blocks": [1]}, training={"steps": 1, "validate_every": 1}))
    for command in (["data", "list"], ["train", *RUN], ["evaluate", *RUN]):
        written = io.BytesIO()
        with monkeypatch.context() as context:
            context.setattr("sys.stdout", io.TextIOWrapper(written, encoding=encoding))
            assert in_process(context, *command) == 0
        assert plus_minus in written.getvalue() or command == ["data", "list"]


def test_the_c_locale_is_enough(tmp_path: Path) -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "acf.cli", "data", "list"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"digits" in result.stdout


@pytest.mark.parametrize("redirection", ["| true", ">/dev/full", ">&-", ">&- 2>&- <&-"])
def test_output_that_cannot_be_written_is_no_traceback(tmp_path: Path, redirection: str) -> None:
    command = f"{sys.executable} -m acf.cli data list --json {redirection}"
    result = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    full = "error: standard output, or a file: No space left on device; free space on its disk and run the same command"
    assert result.stderr == (f"{full} again\n" if "full" in redirection else "")
    assert result.returncode == (0 if ">&-" in redirection else 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_signal_outside_training_is_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("acf.data.listing.overview", lambda: signal.raise_signal(getattr(signal, name)))
    assert in_process(monkeypatch, "data", "list") == 130
    assert capsys.readouterr().err == f"interrupted by {name}; run the same command again to go on\n"


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruptible() as signals:
            signal.raise_signal(signal.SIGHUP)
        assert signals.received is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_module_that_is_not_python_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        compile("def f(:", "src/acf/flows/new.py", "exec")

    monkeypatch.setattr("acf.data.listing.overview", broken)
    assert in_process(monkeypatch, "data", "list") == 1
    assert capsys.readouterr().err == "error: src/acf/flows/new.py:1: invalid syntax; mend that file\n"


def test_a_read_only_project_is_one_line(
    study: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = study()
    (root / ".acf").write_text("in the way")
    monkeypatch.chdir(root)
    assert in_process(monkeypatch, "train", *RUN, "--device", "cpu") == 1
    err = capsys.readouterr().err
    assert err.startswith("error: cannot write .acf/runs/")
    assert err.endswith("; remove what is in its place\n")
    assert err.count("\n") == 1


def test_ctrl_c_before_the_commands_are_there_leaves_no_traceback(tmp_path: Path) -> None:
    """While the first library is imported, which takes seconds where the disk is slow."""
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "acf", "--help"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (-signal.SIGINT, "", "")
