"""A package that is missing is named, with the extra that brings it; nothing else is needed to begin with."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.metadata import requires
from pathlib import Path

import pytest

import acf
from acf.data.listing import overview
from acf.errors import MissingPackageError
from acf.extras import PACKAGES, install_command, needed_by
from acf.registry import DATASETS
from tests.test_layers import PACKAGE, imports

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OWN = {"acf"}


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None
    return found[0].lower().replace("_", "-")


NEEDED = {_name(line) for line in PROJECT["dependencies"]}
EXTRAS = {extra: [_name(line) for line in lines] for extra, lines in PROJECT["optional-dependencies"].items()}


def _imported() -> Iterator[str]:
    """Packages that the program imports anywhere, by the names under which they are installed."""
    for path in PACKAGE.rglob("*.py"):
        for module in imports(path):
            top = module.partition(".")[0]
            if top not in sys.stdlib_module_names | OWN:
                yield PACKAGES.get(top, top.lower().replace("_", "-"))


def test_every_package_that_is_imported_is_in_the_metadata() -> None:
    used = set(_imported())
    assert {"torch", "pillow", "scikit-learn", "dvc"} <= used
    told = {package: install_command(package) for package in used}
    assert not [package for package, command in told.items() if command is None]
    assert {package for package, command in told.items() if command == "pip install acf"} == used & NEEDED


def test_the_extra_is_the_first_that_has_the_package() -> None:
    for extra, packages in EXTRAS.items():
        for package in set(packages) - OWN - NEEDED:
            first = next(name for name, members in EXTRAS.items() if package in members)
            assert install_command(package) == f"pip install 'acf[{first}]'", extra
    assert install_command("no-such-package") is None


def test_the_lock_has_the_packages_of_all_extras_but_fid() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    locked = {_name(line) for line in lines if "==" in line}
    wanted = NEEDED.union(*(packages for extra, packages in EXTRAS.items() if extra != "fid")) - OWN
    assert wanted <= locked
    assert {name for name in locked if name.startswith("nvidia-")} <= {"nvidia-ml-py"}, "a build for CUDA"


def test_the_installed_metadata_are_those_of_the_project() -> None:
    """Otherwise `make setup` has not been run since pyproject.toml was changed."""
    lines = requires("acf") or []
    assert {_name(line) for line in lines if "extra ==" not in line} == NEEDED
    assert acf.__version__ == PROJECT["version"]
    assert f"\nversion: {acf.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_message_names_what_needs_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    told = "acf prepare needs scikit-learn, which is not installed: pip install 'acf[data]'"
    with pytest.raises(MissingPackageError, match=re.escape(told)) as first, needed_by("acf prepare"):
        import_module("sklearn.datasets")
    assert isinstance(first.value, ImportError)
    assert first.value.name == "sklearn.datasets"
    with pytest.raises(MissingPackageError, match=r"^a study needs scikit-learn"), needed_by("a study"):
        raise first.value
    with pytest.raises(ModuleNotFoundError, match="no_such_module") as other, needed_by("acf prepare"):
        import_module("no_such_module")
    assert not isinstance(other.value, MissingPackageError)


def test_a_data_set_that_lacks_a_package_is_broken_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_pictures.py").write_text("import seaborn.objects\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "seaborn.objects", None)
    monkeypatch.setitem(DATASETS, "pictures", "own_pictures:Pictures")
    entry = next(entry for entry in overview(tmp_path) if entry.name == "pictures")
    assert entry.state == "broken"
    assert entry.problem == "data set 'pictures' needs seaborn, which is not installed: pip install 'acf[report]'"


# Runs in a process of its own, in which no optional package can be found.
BARE = """
import json, sys

class WithoutOptional:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in MODULES else self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(WithoutOptional, sys.meta_path)
from acf.cli import main
for command in COMMANDS:
    sys.argv = ["acf", *command]
    try:
        main()
    except SystemExit as end:
        print(json.dumps([command[0], end.code]), file=sys.stderr)
"""
RUN = ("--experiment", "digits", "--variant", "resflow")
WORKING = [("--help",), ("data", "list"), ("train", *RUN), ("evaluate", *RUN)]
LACKING = {
    ("prepare", "--dataset", "fashion-mnist"): ("requests", "data"),
    ("sample", *RUN): ("pillow", "data"),
    ("report", "--experiment", "digits"): ("pandas", "report"),
    ("export", *RUN, "--to", "exported"): ("pandas", "report"),
    ("readme",): ("pandas", "report"),
    ("toy", "moons"): ("seaborn", "report"),
    ("sync",): ("dvc", "pipeline"),
}


def test_without_optional_packages_models_are_trained_and_measured(study: Callable[..., Path]) -> None:
    names = {package: module for module, package in PACKAGES.items()}
    brought = {"jinja2", "markupsafe"}  # by torch
    modules = {names.get(package, package.replace("-", "_")) for package in set(_imported()) - NEEDED - brought}
    program = BARE.replace("MODULES", repr(modules)).replace("COMMANDS", repr([*WORKING, *LACKING]))
    training = {"steps": 1, "warmup_steps": 1, "validate_every": 1, "validation_images": 2}
    smallest = study(model={"blocks": [1]}, training=training, evaluation={"draws": 1, "images": 4})
    result = subprocess.run([sys.executable, "-c", program], cwd=smallest, capture_output=True, text=True, check=False)
    lines = [f'["{command[0]}", 0]' for command in WORKING]
    for command, (package, extra) in LACKING.items():
        lines.append(f"error: acf {command[0]} needs {package}, which is not installed: pip install 'acf[{extra}]'")
        lines.append(f'["{command[0]}", 1]')
    assert result.stderr.splitlines() == lines
