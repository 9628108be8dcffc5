"""`acf train` killed again and again, and started again by the real engines: the same bits as undisturbed."""

import csv
import io
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from acf.stages.code_notes import write_code
from acf.stages.evaluate import evaluate
from acf.stages.train import train
from tests.pipeline.dying import MOMENTS, WRITING
from tests.pipeline.project import SOURCE, Project

OPTIONS = ["--experiment", "digits", "--variant", "resflow", "--seed", "0"]
MODEL = "models/digits/resflow/seed0"


class Dying(Project):
    """A project with data, whose trainings die as `tests.pipeline.dying` says; each engine builds the same model."""

    def __init__(self, root: Path, **training: int) -> None:
        super().__init__(root)
        study = yaml.safe_load(self.text("params.yaml"))
        study["experiments"]["digits"]["training"] = {"steps": 12, "validate_every": 3, **training}
        (root / "params.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
        write_code(root)
        (root / "bin/acf").write_text(f'#!/bin/sh\nexec {sys.executable} {SOURCE}/tests/pipeline/dying.py "$@"\n')

    def start(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end, in a session of its own, whatever the end is."""
        places = {"PYTHONPATH": str(self.root / "src"), "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}"}
        environment = {**os.environ, **places, "OMP_NUM_THREADS": "1", "ACF_DEVICE": "cpu"}
        return subprocess.run(
            command, cwd=self.root, env=environment, capture_output=True, text=True, check=False, start_new_session=True
        )

    def by_dvc(self) -> "subprocess.CompletedProcess[str]":
        """Train by DVC: the same command again after each death."""
        return self.start(sys.executable, "-m", "dvc", "repro", "--single-item", "train-digits@resflow-0")

    def by_snakemake(self, retries: int) -> "subprocess.CompletedProcess[str]":
        """Train by Snakemake, which starts a job again by itself."""
        options = ["--cores", "1", "--rerun-incomplete", "--retries", str(retries)]
        return self.start(sys.executable, "-m", "snakemake", *options, "--", f"{MODEL}/model.safetensors")

    def moments_left(self) -> list[str]:
        return self.text(str(MOMENTS)).splitlines()

    def result(self) -> tuple[bytes, list[dict[str, str]], dict[str, object]]:
        """Return weights, history without seconds, and metrics without times."""
        evaluate("digits", "resflow", 0, "cpu", self.root)
        rows = list(csv.DictReader(io.StringIO(self.text(f"{MODEL}/history.csv"))))
        weights = (self.root / MODEL / "model.safetensors").read_bytes()
        return weights, [{**row, "seconds": ""} for row in rows], self.metrics("resflow")


def undisturbed(root: Path, digits: Path, **training: int) -> Dying:
    project = Dying(root, **training)
    shutil.copytree(digits, root / "data")
    train("digits", "resflow", 0, "cpu", root)
    return project


def without_training(project: Dying, root: Path) -> Dying:
    copy = project.copy(root)
    shutil.rmtree(root / "models")
    shutil.rmtree(root / ".acf")
    return copy


def test_a_training_that_both_engines_lose_ends_with_the_same_bits(tmp_path: Path, digits: Path) -> None:
    """Stopped and killed under Snakemake, which tries once more, then killed together with DVC."""
    whole = undisturbed(tmp_path / "whole", digits)
    cut = without_training(whole, tmp_path / "cut")
    (cut.root / MOMENTS).write_text("stop 5\nhalf 2\nengine 2\n")
    failed = cut.by_snakemake(retries=1)
    assert failed.returncode != 0
    assert cut.moments_left() == ["engine 2"], failed.stderr
    assert "stopped by SIGTERM after step 5" in failed.stdout + failed.stderr
    assert cut.by_dvc().returncode == -signal.SIGKILL
    assert cut.moments_left() == []
    last = cut.by_dvc()
    assert last.returncode == 0, last.stderr
    assert "resumed after step 6" in last.stdout
    assert cut.result() == whole.result()


def moments(seed: int) -> list[str]:
    """Twenty moments in a random order: in all stages of a writing, and anywhere in a step, of validations too."""
    chance = random.Random(seed)
    writes = [f"{kind} {chance.choice([1, 1, 2])}" for kind in WRITING * 2]
    steps = [f"step {chance.randint(1, 6)} {chance.uniform(0, 0.1):.3f}" for _ in range(7)]
    drawn = [*writes, *steps, "stop 3", "stop 6", "engine 4"]
    chance.shuffle(drawn)
    return drawn


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["dvc", "snakemake"])
def test_killed_at_twenty_moments(tmp_path: Path, digits: Path, engine: str) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}: {moments(seed)}")
    whole = undisturbed(tmp_path / "whole", digits, steps=150, validate_every=5)
    cut = without_training(whole, tmp_path / "cut")
    (cut.root / MOMENTS).write_text("\n".join(moments(seed)) + "\n")
    for _ in range(22):
        ended = cut.by_dvc() if engine == "dvc" else cut.by_snakemake(retries=5)
        if ended.returncode == 0:
            break
        if engine == "snakemake" and ended.returncode == -signal.SIGKILL:
            cut.output(sys.executable, "-m", "snakemake", "--unlock")
    assert ended.returncode == 0, ended.stderr
    assert cut.moments_left() == []
    assert cut.result() == whole.result()
