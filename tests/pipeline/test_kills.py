"""`acf train` killed again and again, and started again by the real engines: the same bits as undisturbed."""

import csv
import io
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

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
        self.start(sys.executable, "-m", "snakemake", "--unlock")
        return self.start(sys.executable, "-m", "snakemake", *options, "--", f"{MODEL}/model.safetensors")

    def moments_left(self) -> list[str]:
        return self.text(str(MOMENTS)).splitlines()

    def result(self) -> tuple[bytes, list[dict[str, str]], dict[str, object]]:
        """Return weights, history without seconds, and metrics without times."""
        self.output("acf", "evaluate", *OPTIONS)
        rows = list(csv.DictReader(io.StringIO(self.text(f"{MODEL}/history.csv"))))
        weights = (self.root / MODEL / "model.safetensors").read_bytes()
        return weights, [{**row, "seconds": ""} for row in rows], self.metrics("resflow")


def undisturbed(root: Path, **training: int) -> Dying:
    project = Dying(root, **training)
    project.output("acf", "prepare", "--dataset", "digits")
    return project


def test_killed_and_stopped_under_both_engines(tmp_path: Path) -> None:
    """The first two deaths under Snakemake, which tries once more, the others under DVC."""
    whole = undisturbed(tmp_path / "whole")
    cut = whole.copy(tmp_path / "cut")
    (cut.root / MOMENTS).write_text("half 2\nrename 1\nstop 2\nengine 2\n")
    failed = cut.by_snakemake(retries=1)
    assert failed.returncode != 0
    assert cut.moments_left() == ["stop 2", "engine 2"], failed.stderr
    stopped = cut.by_dvc()
    assert stopped.returncode != 0
    assert "stopped by SIGTERM after step " in stopped.stderr + stopped.stdout
    assert cut.by_dvc().returncode != 0
    assert cut.moments_left() == []
    last = cut.by_dvc()
    assert last.returncode == 0, last.stderr
    assert "resumed after step" in last.stdout
    whole.output("acf", "train", *OPTIONS)
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
def test_killed_at_twenty_moments(tmp_path: Path, engine: str) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}: {moments(seed)}")
    whole = undisturbed(tmp_path / "whole", steps=150, validate_every=5)
    cut = whole.copy(tmp_path / "cut")
    (cut.root / MOMENTS).write_text("\n".join(moments(seed)) + "\n")
    for _ in range(22):
        ended = cut.by_dvc() if engine == "dvc" else cut.by_snakemake(retries=5)
        if ended.returncode == 0:
            break
    assert ended.returncode == 0, ended.stderr
    assert cut.moments_left() == []
    whole.output("acf", "train", *OPTIONS)
    assert cut.result() == whole.result()
