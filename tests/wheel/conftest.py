"""The distributions, built from a copy of the files under version control, and an environment with the wheel alone."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def files() -> list[str]:
    """The files under version control, as paths from the top folder."""
    return subprocess.check_output(["git", "ls-files", "--cached", "-z"], cwd=ROOT, text=True).split("\0")[:-1]


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory, files: list[str]) -> Path:
    """A folder with the sdist, and the wheel that is made from it."""
    copy, target = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("dist")
    for name in files:
        if (ROOT / name).is_file() and name.split("/")[0] not in ("reports", "results", "benchmarks"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", target, copy], check=True)
    return target


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, dist: Path) -> Run:
    """A function that runs a program of an environment in which `pip install` of the wheel was all that happened.

    The versions are those of requirements.lock.
    """
    (wheel,) = dist.glob("*.whl")
    place = tmp_path_factory.mktemp("environment")
    unwanted = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(place / "bin/python")]
    options = ["--quiet", "--no-compile", "--constraint", str(ROOT / "requirements.lock")]
    subprocess.run([*pip, "install", *options, str(wheel)], env=environment, cwd=place, check=True)

    def run(program: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        command = [place / "bin" / program, *arguments]
        return subprocess.run(
            command, cwd=cwd, env={**environment, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
        )

    return run
