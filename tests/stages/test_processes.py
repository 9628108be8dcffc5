"""`acf train` in several processes: what it writes, and how it ends when one of them, or what started them, does."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from acf.stages.train import train
from tests.building_blocks.ranks import needs_gloo
from tests.training.live.readers import READERS, require_same

pytestmark = needs_gloo
Study = Callable[..., Path]
Finished = subprocess.CompletedProcess[str]
TRAIN = ["train", "--experiment", "digits", "--variant", "resflow"]
LONG = {"steps": 120, "validate_every": 5, "validation_images": 20}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "ACF_DEVICE": "cpu"}


def acf(
    root: Path, *options: str, launcher: tuple[str, ...] = (), **variables: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *launcher, "acf", *TRAIN, *options]
    return subprocess.run(command, cwd=root, env=ENVIRONMENT | variables, capture_output=True, text=True, check=False)


def descendants(process: int) -> list[int]:
    """The processes that `acf train --processes` has started, by rank."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(child) for child in children]


@contextmanager
def training(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Two processes that train, after their first validation."""
    command = [sys.executable, "-m", "acf", *TRAIN, "--processes", "2"]
    with subprocess.Popen(
        command, cwd=root, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "validation" in line and "±" in line:
                break
        yield process


def gone(processes: list[int], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while any(Path(f"/proc/{p}/cmdline").exists() and Path(f"/proc/{p}/cmdline").read_text() for p in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_the_result_of_two_processes_is_that_of_one(study: Study) -> None:
    two, one = study("two"), study("one")
    sinks = [name for name in ["tensorboard"] if find_spec(name)]
    result = acf(two, "--processes", "2", "--live", ",".join(sinks))
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("parameters on") == 1
    assert result.stdout.count("wrote models/digits/resflow/seed0") == 1
    train("digits", "resflow", 0, "cpu", one)
    place = "models/digits/resflow/seed0"
    config = {root: json.loads((root / place / "config.json").read_text()) for root in (one, two)}
    assert config[one]["recipe"] == config[two]["recipe"]
    assert config[two]["device"].startswith("2 x cpu")
    rows = [list(csv.DictReader((root / place / "history.csv").open())) for root in (one, two)]
    for name in sinks:  # the first process alone has written
        folder = two / ".acf/live" / name / "digits/resflow/seed0" / config[two]["recipe"]
        require_same(READERS[name](folder), rows[1])
    for mine, other in zip(*rows, strict=True):
        assert (mine["step"], mine["images"]) == (other["step"], other["images"])
        # Adam makes rounding errors of the smallest gradients parts of a step.
        assert float(mine["train_bits_per_dim"]) == pytest.approx(float(other["train_bits_per_dim"]), rel=1e-3)
        assert float(mine["gradient_norm"]) == pytest.approx(float(other["gradient_norm"]), rel=1e-2)
    (two / place / "model.safetensors").unlink()
    again = acf(two, ACF_PROCESSES="2")
    assert again.stdout.startswith("restored ")


@pytest.mark.slow  # tests/training/test_ranks.py has processes that fail
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_the_death_of_a_process_ends_the_run_with_one_message(study: Study) -> None:
    root = study(training=LONG)
    with training(root) as process:
        children = descendants(process.pid)
        assert len(children) == 2
        os.kill(children[1], signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("error: process 2 of 2 was ended by SIGKILL")
    assert errors.count("\n") == 1
    assert gone(children)


@pytest.mark.slow  # tests/stages/test_train.py interrupts one process, tests/training/test_ranks.py has two
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_what_is_stopped_or_loses_what_started_it_is_gone_on_with_by_another_number(study: Study) -> None:
    root = study(training=LONG)
    with training(root) as process:
        process.send_signal(signal.SIGUSR1)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.startswith("interrupted: train digits/resflow/seed0: stopped by SIGUSR1 after step ")
    assert errors.count("\n") == 1
    with training(root) as process:
        children = descendants(process.pid)
        process.kill()
        process.communicate()
        assert gone(children)  # they save their checkpoint and stop
    (store,) = (root / ".acf/runs").iterdir()
    assert (store / "checkpoint.pt").exists()
    resumed = acf(root, launcher=("torch.distributed.run", "--nproc-per-node=1", "-m"))
    assert resumed.returncode == 0, resumed.stderr
    assert "resumed after step" in resumed.stdout


@pytest.mark.slow  # as above
def test_an_error_before_training_is_said_once(study: Study) -> None:
    root = study(training={"validation_images": 1500})
    result = acf(root, "--processes", "2")
    assert result.returncode == 1
    assert result.stderr.count("error: ") == 1
    assert "leaves nothing of the 1500" in result.stderr
