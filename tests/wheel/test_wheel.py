"""What pip installs: the files of the package and no others, enough for the library and for training."""

import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.test_readme_code import LIBRARY
from tests.wheel.conftest import Run

pytestmark = pytest.mark.wheel
RUN = ("--experiment", "digits", "--variant", "resflow")


def test_the_distributions_have_all_files_of_the_package_and_no_others(dist: Path, files: list[str]) -> None:
    package = {name for name in files if name.startswith("src/")}
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        inside = {f"src/{name}" for name in archive.namelist() if ".dist-info/" not in name}
    assert inside == package
    assert {"src/acf/py.typed", "src/acf/reporting/templates/report.html.j2"} <= inside
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    beside = {"LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}
    assert {name for name in names if not name.startswith("src/acf.egg-info/")} == package | beside


def test_the_code_in_the_readme_runs(installed: Run, tmp_path: Path) -> None:
    result = installed("python", "-c", LIBRARY, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 1  # the proven bound
    assert (tmp_path / "my-flow/model.safetensors").is_file()


def test_prepared_data_are_trained_on(installed: Run, study: Callable[..., Path]) -> None:
    root = study()
    result = installed("acf", "train", *RUN, cwd=root)
    assert result.returncode == 0, result.stderr
    assert (root / "models/digits/resflow/seed0/model.safetensors").is_file()


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        (("prepare", "--dataset", "digits"), "scikit-learn", "data"),
        (("report", "--experiment", "digits"), "pandas", "report"),
        (("sync",), "dvc", "pipeline"),
    ],
    ids=["prepare", "report", "sync"],
)
def test_a_command_says_which_extra_it_needs(
    installed: Run, study: Callable[..., Path], command: tuple[str, ...], package: str, extra: str
) -> None:
    root = study()
    shutil.rmtree(root / "data")
    result = installed("acf", *command, cwd=root)
    assert result.returncode == 1
    told = f"error: acf {command[0]} needs {package}, which is not installed: pip install 'acf[{extra}]'\n"
    assert result.stderr == told
