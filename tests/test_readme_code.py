"""What README shows is what works."""

import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from acf.data.listing import overview
from acf.registry import DATASETS
from acf.stages.prepare import prepare

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LIBRARY, VECTORS, DATA_SET = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
"""README's code: of the library, of vectors and conditions, which goes on from it, and of a data set of one's own."""


def narrow(code: str) -> str:
    """The code with a narrower flow, which takes a fraction of the time."""
    assert '"idim": 64' in code
    return code.replace('"idim": 64', '"idim": 8')


def test_the_code_in_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(narrow(LIBRARY), names)
    samples, x, again = names["samples"], names["x"], names["x_again"]
    assert isinstance(samples, torch.Tensor)
    assert samples.shape == (16, 1, 8, 8)
    assert isinstance(x, torch.Tensor)
    assert isinstance(again, torch.Tensor)
    assert float((x - again).detach().abs().max()) < 1e-4
    assert (tmp_path / "my-flow" / "model.safetensors").is_file()
    exec(narrow(VECTORS), names)
    loss = names["loss"]
    assert isinstance(loss, torch.Tensor)
    assert loss.isfinite()


def _own(form: str) -> str:
    """README's code of a data set of one's own, from a folder or, as its comment says, from an array."""
    code = DATA_SET
    if form == "folder":
        return code
    place, array = re.search(r"# or (acf[\w.]+), with (array = \"[^\"]+\")", code).groups()  # type: ignore[union-attr]
    module, _, name = place.rpartition(".")
    code = re.sub(r"from .*", f"from {module} import {name}", code, count=1).replace("(ImageFolder)", f"({name})")
    return re.sub(r"folder = .*", array, code)


@pytest.mark.parametrize("form", ["folder", "array"])
def test_the_data_set_in_the_readme_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    module = types.ModuleType("faces")
    exec(_own(form), module.__dict__)
    monkeypatch.setitem(sys.modules, "faces", module)
    monkeypatch.setitem(DATASETS, "faces", "faces:Faces")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "faces").mkdir()
    for i in range(10):
        Image.new("RGB", (70 + i, 90), (i, 0, 0)).save(tmp_path / f"faces/{i}.jpg")
    np.save(tmp_path / "faces.npy", np.zeros((10, 64, 64, 3), np.uint8))
    assert prepare("faces", tmp_path / "data").counts == {"train": 9, "test": 1}
    assert next(entry for entry in overview(tmp_path / "data") if entry.name == "faces").state == "ready"


def test_the_commands_that_people_are_told_exist_with_their_options() -> None:
    from typer.testing import CliRunner

    from acf.cli import app

    root = Path(__file__).parents[1]
    texts = [(root / name).read_text(encoding="utf-8") for name in ("README.md", "Makefile", "CONTRIBUTING.md")]
    calls = [line for text in texts for line in re.findall(r"\bacf ((?:data )?[a-z]+(?: +--?[^`&|#\n]*)?)", text)]
    told: dict[str, set[str]] = {}
    for call in calls:
        command = re.match(r"(data )?[a-z]+", call)
        assert command is not None
        told.setdefault(command[0], set()).update(re.findall(r"--[a-z-]+", call))
    assert {"prepare", "train", "evaluate", "baselines", "sample", "report", "audit", "graph", "data list"} <= set(told)
    for command, options in told.items():
        shown = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200"})
        assert shown.exit_code == 0, command
        missing = {option for option in options if option not in shown.output}
        assert not missing, f"acf {command} has no {missing}"


@pytest.mark.parametrize("document", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_the_tests_that_the_documents_name_exist(document: str) -> None:
    for path, _, name in re.findall(r"`(tests/[\w./]+)(::(\w+))?`", (ROOT / "docs" / document).read_text("utf-8")):
        assert (ROOT / path).exists(), path
        assert not name or f"def {name}(" in (ROOT / path).read_text("utf-8"), name
