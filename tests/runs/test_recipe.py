import json
import subprocess
import sys
from pathlib import Path

import pytest

from acf.errors import AcfError
from acf.registry import ANALYSES
from acf.runs.code import CODE, PACKAGE, code_files
from acf.runs.recipe import file_hash, recipe
from acf.runs.source import Source

PLAIN = """
class Flow:
    def forward(self, x):
        return x + 1
"""
COMMENTED = '''
"""A module."""

class Flow:  # the flow
    """A flow."""

    def forward(self,
                x):
        """Add one."""
        return (x  +  1)
'''


MODULES = {
    "__init__.py": "",
    "registry.py": "ATTENTIONS = {'l2': 'acf.lipschitz.l2:Attention'}",
    "settings.py": "import acf.training.by_settings",
    "stages/train.py": "import acf.training.loop\nfrom ..data import prepared\nfrom acf.flows import part",
    "stages/evaluate.py": "from acf.flows.part import Flow\nfrom acf.evaluation import part",
    "stages/sample.py": "from acf.flows.part import Flow",
    "stages/report.py": "from acf.reporting.page import write",
    "flows/__init__.py": "import acf.settings",
    "flows/part.py": PLAIN,
    "lipschitz/l2.py": "",
    "evaluation/part.py": "",
    "training/loop.py": "def run():\n    from . import later\n    from acf.registry import ATTENTIONS",
    "training/later.py": "",
    "training/by_settings.py": "",
    "training/unused.py": "",
    "data/prepared/__init__.py": "def read(): ...",
    "reporting/page.py": "TEMPLATE = 'page.j2'",
    "reporting/templates/page.j2": "{% include 'style.css' %}",
    "reporting/templates/style.css": "",
    "reporting/templates/unused.css": "",
}
"""A small package in which modules are imported in every way that the package knows."""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    for name, text in MODULES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def of(code: Path, stage: str = "train", **settings: object) -> str:
    return recipe(stage, settings, {"manifest": "abc"}, code)


def test_comments_docstrings_and_format_do_not_count(code: Path) -> None:
    before = of(code)
    (code / "flows" / "part.py").write_text(COMMENTED)
    assert of(code) == before


@pytest.mark.parametrize("change", ["x + 2", "x - 1", "x + 1.0", "x + '1'", "y + 1"])
def test_code_counts(code: Path, change: str) -> None:
    before = of(code)
    (code / "flows" / "part.py").write_text(PLAIN.replace("x + 1", change))
    assert of(code) != before


def test_strings_that_are_values_count(code: Path) -> None:
    (code / "flows" / "part.py").write_text("kind = 'l2'")
    before = of(code)
    (code / "flows" / "part.py").write_text("kind = 'dot'")
    assert of(code) != before


def test_only_the_code_of_the_stage_counts(code: Path) -> None:
    train, evaluate = of(code, "train"), of(code, "evaluate")
    (code / "evaluation" / "part.py").write_text("changed = True")
    (code / "reporting" / "page.py").write_text("new = True")
    assert of(code, "train") == train
    assert of(code, "evaluate") != evaluate


def test_exactly_what_is_imported_counts(code: Path) -> None:
    assert set(code_files("train", code)) == {
        "stages/train.py",
        "data/prepared/__init__.py",  # as a relative name
        "flows/__init__.py",  # as the package around a module
        "flows/part.py",
        "lipschitz/l2.py",  # as a string in a module that does not count itself
        "training/loop.py",
        "training/later.py",  # within a function
        "training/by_settings.py",  # by a module that does not count itself
    }
    assert set(code_files("report", code)) == {
        "stages/report.py",
        "reporting/page.py",
        "reporting/templates/page.j2",
        "reporting/templates/style.css",
    }


@pytest.mark.parametrize(
    ("stage", "name"), [(stage, name) for stage in ("train", "report") for name in MODULES if "unused" not in name]
)
def test_the_files_that_count_change_the_recipe_and_others_do_not(code: Path, stage: str, name: str) -> None:
    before, counts = of(code, stage), name in code_files(stage, code)
    path = code / name
    path.write_text(path.read_text() + "\nchanged = 1")
    assert (of(code, stage) != before) == counts


LEFT_BY_EDITORS = [
    "flows/.ipynb_checkpoints/part-checkpoint.py",
    "flows/.mypy_cache/3.11/cache.json",
    "flows/__pycache__/part.cpython-311.pyc",
    "flows/part.py~",
    "flows/part.py.orig",
    "flows/part.py.rej",
    "flows/#part.py#",
    "flows/.#part.py",
    "flows/.part.py.swp",
    "flows/.DS_Store",
    "flows/notes.txt",
    "flows/part",
    "flows/scratch.py",
    "flows/part copy.py",
    "flows/old/part.py",
    "reporting/templates/page.j2~",
    "reporting/templates/.ipynb_checkpoints/page.j2",
    "reporting/templates/page-checkpoint.j2",
    "reporting/templates/notes.txt",
    "training/.training.py.tmp",
]


def test_files_that_editors_leave_do_not_count(code: Path) -> None:
    before = of(code), of(code, "report")
    for name in LEFT_BY_EDITORS:
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        (code / name).write_bytes(b"def broken( \xff")
    assert (of(code), of(code, "report")) == before


def test_a_new_module_counts_once_it_is_imported(code: Path) -> None:
    before = of(code)
    (code / "flows" / "new.py").write_text("")
    assert of(code) == before
    (code / "registry.py").write_text("BRANCHES = {'new': 'acf.flows.new:branch'}")
    assert of(code) != before


@pytest.mark.parametrize("content", [b"def broken(:\n", b"x = 1\0", b"'\xff'"])
def test_a_module_that_is_not_python_is_named(code: Path, content: bytes) -> None:
    (code / "training" / "later.py").write_bytes(b"import math\n" + content)
    with pytest.raises(AcfError, match=r"training/later\.py:\d+: .*; mend the file"):
        of(code)


LOADED = """
import importlib, json, os, sys
import torch.optim.swa_utils
import acf.settings.params  # of no stage's folders, like the rest of what is imported here once for all stages

def load(stage):
    import acf, acf.data
    import acf.registry as registry
    importlib.import_module(f"acf.stages.{stage}")
    tables = [registry.ATTENTIONS, registry.JOINS, registry.BRANCHES, registry.ACTIVATIONS, registry.BASELINES]
    for table in [registry.DATASETS] if stage == "prepare" else tables:
        for name in table:
            registry.resolve(table, name, "name")
    for package in (acf, acf.data):
        for name in package.__all__:
            getattr(package, name)
    return [m.__file__ for name, m in sys.modules.items() if name.partition(".")[0] == "acf"]

for stage in sys.argv[1:]:
    if os.fork() == 0:
        print(json.dumps([stage, load(stage)]), flush=True)
        os._exit(0)
    os.wait()
"""


def test_every_module_that_is_imported_below_the_folders_of_a_stage_counts() -> None:
    """The registry's names and the lazily loaded names of packages are loaded, as settings may have them."""
    command = [sys.executable, "-c", LOADED, "prepare", "train", "evaluate"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == 3
    for stage, files in map(json.loads, lines):
        loaded = {Path(file).relative_to(PACKAGE).as_posix() for file in files}
        counting, left_out = ([p for p in CODE[stage] if p.startswith("-") is out] for out in (False, True))
        within = {name for name in loaded if any(name == p or name.startswith(f"{p}/") for p in counting)}
        within -= {name for name in within if any(name.startswith(f"{p[1:]}/") for p in left_out)}
        assert f"stages/{stage}.py" in within
        assert within <= set(code_files(stage)), stage


def test_settings_count_and_their_order_does_not(code: Path) -> None:
    assert of(code, a=1, b={"c": 2, "d": [3]}) == of(code, b={"d": [3], "c": 2}, a=1)
    assert of(code, a=1) != of(code, a=2)
    assert of(code, a=[1, 2]) != of(code, a=[2, 1])


def test_inputs_and_stage_count(code: Path) -> None:
    names = {
        recipe(stage, {}, {"manifest": content}, code)
        for stage in ("evaluate", "sample", "train")
        for content in ("abc", "abd")
    }
    assert len(names) == 6
    assert all(len(name) >= 16 and int(name, 16) >= 0 for name in names)


def test_stages_name_code_that_exists() -> None:
    assert all((PACKAGE / place.removeprefix("-")).exists() for places in CODE.values() for place in places)


def place_of(analysis: str) -> str:
    """The file of an analysis by its place below the package."""
    module = ANALYSES[analysis].partition(":")[0]
    return f"{module.removeprefix('acf.').replace('.', '/')}.py"


def test_analyses_count_for_themselves_only() -> None:
    name = next(iter(ANALYSES))
    own, known = place_of(name), dict[str, Source]()
    files = {stage: code_files(stage, known=known) for stage in CODE}
    assert {own, "evaluation/likelihood.py", "flows/flow.py", "stages/analyse.py"} <= set(files[name])
    for stage in CODE:
        found = {file for file in files[stage] if file.startswith("evaluation/analyses/")}
        assert found == {place_of(other) for other in ANALYSES if other == stage}


def test_file_hash_is_the_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert file_hash(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


FIXED = '''
"""A docstring."""
from . import near
from acf.flows import flow as named
PLACES = {"conv": "acf.flows.build:build", **near.more}
EMPTY: list = []


class One(dict, other=1):
    """Another."""

    def value(self, x: int = 1, *rest, key=None, **named):
        "A third."
        match x:
            case [1, *others] if others:
                return f"{x!r:>{key}}" + u"old"
            case {"a": b}:
                yield from b
        for _ in rest:
            pass
        else:
            "Not a docstring, but a string that does nothing."
        try:
            x = -1.5e300 + 2j
        finally:
            b"bytes"
            ...
'''


def test_hashes_of_code_stay_what_they_are(tmp_path: Path) -> None:
    """Otherwise every model would be trained again."""
    path = tmp_path / "fixed.py"
    path.write_text(FIXED)
    assert Source(path).hash == "6abef781db08fa8cd4652a87b7fe925f83692ae5f2dff9d9a10949c80b2a8f2b"
    assert Source(path).imports == {".near", "acf.flows.build", "acf.flows.flow"}
    path.write_text(FIXED.replace("-1.5e300", "-1.5e301"))
    assert Source(path).hash != "6abef781db08fa8cd4652a87b7fe925f83692ae5f2dff9d9a10949c80b2a8f2b"
