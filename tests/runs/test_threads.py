"""How many threads compute, and how they wait for each other."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from acf.runs.threads import (
    KNOWN,
    VALUES_PER_THREAD,
    WAITING,
    paying_threads,
    threads_given,
    threads_that_pay,
    wait_passively,
)

ROOT = Path(__file__).parents[2]
LARGE = 1000 * VALUES_PER_THREAD


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A process with eight threads on as many CPUs."""
    before = torch.get_num_threads()
    monkeypatch.setattr("joblib.cpu_count", lambda: 8)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    torch.set_num_threads(8)
    yield 8
    torch.set_num_threads(before)


def test_threads_grow_with_the_work_from_one() -> None:
    numbers = [threads_that_pay(values) for values in range(1, 20 * VALUES_PER_THREAD, VALUES_PER_THREAD // 3)]
    assert numbers == sorted(numbers)
    assert numbers[0] == 1
    assert threads_that_pay(2 * VALUES_PER_THREAD - 1) == 1
    assert threads_that_pay(2 * VALUES_PER_THREAD) == 2


def test_computes_with_the_threads_that_pay_and_gives_back_what_was_there(many: int) -> None:
    for values, number in ((1, 1), (3 * VALUES_PER_THREAD, 3), (LARGE, many)):
        with paying_threads(values) as threads:
            assert torch.get_num_threads() == threads == number
        assert torch.get_num_threads() == many
    with suppress(ZeroDivisionError), paying_threads(1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == many


@pytest.mark.parametrize(("allotted", "number"), [("3", 3), ("1", 1), ("64", 8), ("0", 1), ("", 8), ("many", 8)])
def test_never_more_than_slurm_allots(many: int, allotted: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", allotted)
    assert threads_given() == number
    with paying_threads(LARGE) as threads:
        assert threads == number


@pytest.mark.parametrize(("ours", "number"), [(1, 1), (5, 5), (8, 8)])
def test_never_more_than_the_process_has(many: int, ours: int, number: int) -> None:
    torch.set_num_threads(ours)
    with paying_threads(LARGE) as threads:
        assert threads == number
    assert torch.get_num_threads() == ours


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="an operating system without affinity")
def test_never_more_than_affinity_allows() -> None:
    allowed, before = os.sched_getaffinity(0), torch.get_num_threads()
    torch.set_num_threads(8)
    try:
        for number in {1, min(2, len(allowed))}:
            os.sched_setaffinity(0, sorted(allowed)[:number])
            assert threads_given() == number
    finally:
        os.sched_setaffinity(0, allowed)
        torch.set_num_threads(before)


def test_waits_passively_unless_the_user_says_how() -> None:
    environment = {"PATH": "/bin"}
    wait_passively(environment)
    assert environment == {"PATH": "/bin", **WAITING}
    for name in KNOWN:
        environment = {name: "chosen by the user"}
        wait_passively(environment)
        assert environment == {name: "chosen by the user"}


def openmp(**changes: str) -> str:
    """Return what GNU's OpenMP says of itself while `acf train` loads torch, in a folder that is no project."""
    given = {name: value for name, value in os.environ.items() if name not in KNOWN}
    result = subprocess.run(
        [sys.executable, "-m", "acf.cli", "train", "--experiment", "none", "--variant", "none"],
        env={**given, "PYTHONPATH": str(ROOT / "src"), "OMP_DISPLAY_ENV": "VERBOSE", **changes},
        cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    if "GOMP_SPINCOUNT" not in result.stderr:
        pytest.skip("torch has another OpenMP than GNU's")
    return result.stderr


def test_openmp_reads_what_the_program_sets() -> None:
    text = openmp()
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in text
    assert "GOMP_SPINCOUNT = '0'" in text


def test_openmp_reads_what_the_user_sets() -> None:
    assert "OMP_WAIT_POLICY = 'ACTIVE'" in openmp(OMP_WAIT_POLICY="ACTIVE")


LIBRARY = """
import os, sys
before = dict(os.environ)
import acf, acf.cli, acf.runs.threads
assert "torch" not in sys.modules
assert dict(os.environ) == before
"""


def test_the_library_leaves_the_environment_alone() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", LIBRARY], env=environment, check=True)
