"""Engines and projects side by side on one machine: no device is used by two stages at once."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from acf.stages.code_notes import write_code
from tests.pipeline.project import Project

WITNESS = """
import sys, time
from contextlib import contextmanager
from acf.runs import leases

leased_device = leases.leased_device

@contextmanager
def witnessed(name):
    with leased_device(name) as device:
        start = time.monotonic()
        time.sleep(0.4)
        yield device
        with open({log!r}, "a") as log:
            log.write(f"{{start}} {{time.monotonic()}} {{sys.argv[1]}}\\n")

leases.leased_device = witnessed
from acf.cli import main
main()
"""
TRAINED = [f"models/digits/{variant}/seed0/model.safetensors" for variant in ("resflow", "acf-l2")]


def witnessed(root: Path, log: Path, digits: Path) -> Project:
    """A project, with its data, that notes from when until when each of its stages has a device."""
    project = Project(root)
    shutil.copytree(digits, root / "data")
    write_code(root)
    (root / "bin/witness.py").write_text(WITNESS.format(log=str(log)))
    (root / "bin/acf").write_text(f'#!/bin/sh\nexec {sys.executable} {root / "bin/witness.py"} "$@"\n')
    return project


def start(project: Project, *command: str, devices: str, folder: Path) -> "subprocess.Popen[str]":
    """Start an engine on simulated devices, with `folder` for the leases."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(project.root / "src"),
        "PATH": f"{project.root / 'bin'}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "ACF_DEVICE": "auto",
        "ACF_DEVICES": devices,
        "TMPDIR": str(folder),
    }
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=project.root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def most_at_once(log: Path) -> int:
    """The largest number of stages that had a device at one moment."""
    events = []
    for line in log.read_text().splitlines():
        begin, end, _ = line.split()
        events += [(float(begin), 1), (float(end), -1)]
    at_once, most = 0, 0
    for _, change in sorted(events):
        at_once += change
        most = max(most, at_once)
    return most


@pytest.mark.slow  # tests/runs/test_leases.py has jobs without engines
def test_both_engines_on_two_projects_share_one_device(tmp_path: Path, digits: Path) -> None:
    log = tmp_path / "log"
    one, other = (witnessed(tmp_path / name, log, digits) for name in ("one", "other"))
    engines = [
        start(one, "snakemake", "--cores", "2", "--", *TRAINED, devices="cpu", folder=tmp_path),
        start(other, "dvc", "repro", "--single-item", "train-digits@resflow-0", devices="cpu", folder=tmp_path),
    ]
    said = [engine.communicate(timeout=300)[0] for engine in engines]
    assert [engine.returncode for engine in engines] == [0, 0], said
    assert len(log.read_text().splitlines()) == 3
    assert most_at_once(log) == 1
    assert "waiting until a device is free" in "".join(said)


@pytest.mark.slow
def test_the_workers_of_the_queue_of_dvc_share_one_device(tmp_path: Path, digits: Path) -> None:
    log = tmp_path / "log"
    project = witnessed(tmp_path / "project", log, digits)
    project.commit()
    for rate in ("1e-3", "2e-3"):
        change = f"experiments.digits.variants.acf-l2.training.learning_rate={rate}"
        project.output("dvc", "exp", "run", "--queue", "--set-param", change, "train-digits@acf-l2-0")
    queue = start(project, "dvc", "queue", "start", "--jobs", "2", devices="cpu", folder=tmp_path)
    try:
        assert queue.wait(timeout=60) == 0
        deadline = time.monotonic() + 300
        while (states := project.output("dvc", "queue", "status")).count("Success") < 2:
            assert "Failed" not in states
            assert time.monotonic() < deadline, states
            time.sleep(1)
    finally:
        project.output("dvc", "queue", "stop", "--kill")
    assert len(log.read_text().splitlines()) == 2
    assert most_at_once(log) == 1
