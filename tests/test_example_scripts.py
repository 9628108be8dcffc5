"""The scripts in examples/ run, for a few steps."""

import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import acf
from tests.building_blocks.ranks import needs_gloo

FOLDER = Path(__file__).parents[1] / "examples"
NAMES = ("digits", "plain_loop", "robust_classifier")
TINY = {"shape": (1, 8, 8), "levels": 17, "blocks": [1], "idim": 8, "fc_blocks": 0, "squeeze_first": True}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(FOLDER)
    yield
    for name in NAMES:
        sys.modules.pop(name, None)


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example as a module, its flow and its test images few."""
    module = importlib.import_module(name)
    if hasattr(module, "CONFIG"):
        attention = {"kind": "sinkhorn", "heads": 2}
        monkeypatch.setattr(module, "CONFIG", TINY | {"attention": attention, "evaluation_log_det": {"exact_terms": 4}})
    if hasattr(module, "digits"):
        all_digits = importlib.import_module("digits").digits
        monkeypatch.setattr(module, "digits", lambda: tuple(part[:200] for part in all_digits()))
    return module


def test_the_plain_loop_trains_certifies_and_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    example("plain_loop", monkeypatch).main(3, 16, str(tmp_path / "flow"))
    assert "step 3:" in capsys.readouterr().out
    assert acf.certify(acf.load(tmp_path / "flow")).worst < 1


def _python(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(FOLDER), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


LIGHTNING = """
import contextlib, sys, torch
for name in ("nms", "qnms"):  # which the CPU build of torchvision lacks, and Lightning imports it where it is installed
    with contextlib.suppress(RuntimeError):
        torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")
import lightning_flow
lightning_flow.CONFIG |= {"blocks": [1], "idim": 8, "fc_blocks": 0, "evaluation_log_det": {"exact_terms": 4}}
lightning_flow.main(2, sys.argv[1])
"""


@pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="needs lightning")
def test_the_lightning_module_trains_certifies_and_saves(tmp_path: Path) -> None:
    done = _python("-c", LIGHTNING, tmp_path / "flow", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "bits/dim" in done.stdout
    assert acf.certify(acf.load(tmp_path / "flow")).worst < 1


@pytest.mark.slow  # tests/training/test_ranks.py trains by two processes, too
@needs_gloo
def test_two_processes_train_one_flow(tmp_path: Path) -> None:
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", FOLDER / "ddp.py"]
    done = _python(*launch, "--steps", "2", "--batch-size", "4", "--folder", tmp_path / "flow", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "between processes: 0.0e+00" in done.stdout
    assert acf.certify(acf.load(tmp_path / "flow")).worst < 1


def test_the_classifier_keeps_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracy under attack is never below what is certified, and a stronger attack does succeed."""
    found = example("robust_classifier", monkeypatch).main(40, 8, 60)
    assert found["bound"] <= 1.01
    assert found["accuracy"] > 0.5
    for radius in (0.1, 0.25, 0.5):
        assert found[f"certified {radius}"] <= found[f"attacked {radius}"]
    assert found["deceived 1.0"] == 0
    assert found["deceived 8.0"] > 10
