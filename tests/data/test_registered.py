"""A data set of one's own that is wrong is named with what is wrong, and harms no other."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from acf.cli import app
from acf.data.sources.arrays import ArrayFile
from acf.data.sources.folder import ImageFolder
from acf.data.sources.image_dataset import ImageDataset
from acf.data.sources.registered import dataset_source
from acf.data.sources.split import drawn
from acf.errors import ConfigError
from acf.registry import ATTENTIONS, DATASETS, resolve
from acf.stages.prepare import prepare


class Whole(ArrayFile):
    name, shape, array, source = "own", (3, 8, 8), "~/own.npy", "made by the test"


class NoShape(ImageFolder):
    name, folder = "own", "~/own"


class NoArray(ArrayFile):
    name, shape, source = "own", (3, 8, 8), "made by the test"


class NoExport(ImageDataset):
    name, shape, levels, source = "own", (3, 8, 8), 256, "made by the test"


class AnotherName(Whole):
    name = "mnist"


class FlatShape(Whole):
    shape = (8, 8)  # type: ignore[assignment]


class ManyLevels(Whole):
    levels = 65536


class AllHeldOut(Whole):
    test_share = 1.0


class Property(Whole):
    @property
    def source(self) -> str:  # type: ignore[override]
        return str(1 / 0)


class NoDataset:
    pass


WRONG = {
    "NoShape": "class NoShape of .* has no attribute shape, source",
    "NoArray": "class NoArray of .* has no attribute array",
    "NoExport": "class NoExport of .* has no method export",
    "AnotherName": "has the name 'mnist', which has to be its key",
    "FlatShape": r"has shape = \(8, 8\)",
    "ManyLevels": "has levels = 65536",
    "AllHeldOut": "has test_share = 1.0",
    "Property": "fails with ZeroDivisionError",
    "NoDataset": "is no subclass of ImageDataset",
    "Misspelt": "cannot be imported .*AttributeError",
}


@pytest.mark.parametrize("made", WRONG)
def test_what_is_wrong_with_a_class_is_said(made: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(DATASETS, "own", f"{__name__}:{made}")
    with pytest.raises(ConfigError, match=f"data set 'own' cannot be used: .*{WRONG[made]}"):
        prepare("own", tmp_path / "data")


def test_the_bases_need_no_more_than_the_documents_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "own", f"{__name__}:Whole")
    assert dataset_source("own").levels == 256
    for name in set(DATASETS) - {"own"}:
        assert dataset_source(name).name == name


@pytest.mark.parametrize("content", ["import no_such_module", "raise SystemError('no')", "def (", "class Own: pass"])
def test_a_broken_one_is_listed_and_the_others_work(
    content: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / f"broken{abs(hash(content))}.py").write_text(content)
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.setitem(DATASETS, "own", f"broken{abs(hash(content))}:Own")
    monkeypatch.chdir(project)
    result = CliRunner().invoke(app, ["data", "list", "--json"])
    entries: dict[str, dict[str, Any]] = {entry["name"]: entry for entry in json.loads(result.output)}
    assert set(entries) == set(DATASETS)
    assert [name for name, entry in entries.items() if entry["state"] == "broken"] == ["own"]
    assert "data set 'own' cannot be used" in entries["own"]["problem"]
    assert "data set 'own' cannot be used" in CliRunner().invoke(app, ["data", "list"]).output
    prepare("digits", project / "data")


def test_a_misspelt_module_is_no_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "own", "acf.data.sources.no_such:Own")
    with pytest.raises(ConfigError, match="mend that module, or the line of 'own' in registry"):
        dataset_source("own")


def test_an_attention_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ATTENTIONS, "own", "acf.no_such_file:Own")
    with pytest.raises(ConfigError, match=r"attention 'own' cannot be used: acf\.no_such_file:Own"):
        resolve(ATTENTIONS, "own", "attention")


@pytest.mark.parametrize("count", [2, 3, 10])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_no_split_is_empty(count: int, share: float) -> None:
    parts = drawn(count, share)
    assert min(len(part) for part in parts.values()) >= 1
    assert sorted([*parts["train"], *parts["test"]]) == list(range(count))
