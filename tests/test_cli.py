"""The command line: one clear message, exit code 1, no traceback."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def run(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "acf.cli", *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def fails(cwd: Path, *arguments: str) -> str:
    result = run(cwd, *arguments)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    return result.stderr


RUN = ("--experiment", "digits", "--variant", "resflow")


def test_help_names_every_stage(tmp_path: Path) -> None:
    out = run(tmp_path, "--help").stdout
    for stage in ("prepare", "train", "evaluate", "baselines", "sample", "report", "index"):
        assert stage in out


@pytest.mark.parametrize("command", [("train", *RUN), ("evaluate", *RUN), ("sample", *RUN), ("report", *RUN[:2])])
def test_outside_a_project(tmp_path: Path, command: tuple[str, ...]) -> None:
    assert "params.yaml not found" in fails(tmp_path, *command)


def test_wrong_names_and_missing_files(study: Callable[..., Path]) -> None:
    root = study()
    assert "no variant 'glow'" in fails(root, "train", "--experiment", "digits", "--variant", "glow")
    assert "no experiment 'mnist'" in fails(root, "evaluate", "--experiment", "mnist", "--variant", "resflow")
    assert "acf train" in fails(root, "evaluate", *RUN)
    assert "acf train" in fails(root, "sample", *RUN)
    assert "device 'abacus'" in fails(root, "train", *RUN, "--device", "abacus")


def test_a_bad_key_is_named_with_its_line(study: Callable[..., Path]) -> None:
    root = study()
    text = (root / "params.yaml").read_text().replace("ema_decay", "ema_decaf")
    (root / "params.yaml").write_text(text)
    line = 1 + text.splitlines().index("    ema_decaf: 0.9")
    assert f"params.yaml:{line}: defaults.training.ema_decaf: unknown key" in fails(root, "train", *RUN)


def test_running_out_of_memory_says_what_to_lower(study: Callable[..., Path]) -> None:
    # A matrix of more bytes than a process can address.
    root = study(model={"idim": 10**7, "kernels": [1, 1, 1]})
    message = fails(root, "train", *RUN)
    assert "out of memory; lower training.batch_size" in message


def test_nothing_is_written_when_the_folder_is_a_file(study: Callable[..., Path]) -> None:
    root = study()
    (root / "models").write_text("in the way")
    message = fails(root, "train", *RUN)
    assert "models" in message
