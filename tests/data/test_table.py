"""Tables as data sets: what arrives of a CSV or parquet file, and how each bad cell is named."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import pytest
import torch
from pyarrow import parquet

from acf.data import load, read_manifest, verify
from acf.data.formats import tabular
from acf.data.listing import overview
from acf.data.prepared.labels import Labels, read_labels
from acf.data.prepared.tensors import load_vectors
from acf.data.sources.split import drawn
from acf.data.sources.table import Table
from acf.errors import AcfError, ConfigError, DataError, MissingPackageError
from acf.registry import TABLES
from acf.stages.prepare import prepare
from tests.data.sources import flip

Register = Callable[[type], None]
GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(23, 3)) * [1, 1e-3, 1e4] + [0, 5, 1e6]
NAMES = ["length", "width", "price"]
KINDS = ["cat", "dog", "cow"]


def csv_of(path: Path, rows: list[list[Any]], heads: list[str], delimiter: str = ",") -> Path:
    path.write_text("".join(delimiter.join(map(str, row)) + "\n" for row in [heads, *rows]))
    return path


def both(folder: Path, kind: str) -> Path:
    """X with a column of classes, as CSV or parquet."""
    kinds = [KINDS[i % 3] for i in range(len(X))]
    if kind == "csv":
        return csv_of(
            folder / "t.csv", [[*row, name] for row, name in zip(X.tolist(), kinds, strict=True)], [*NAMES, "kind"]
        )
    table = arrow.table({name: X[:, j] for j, name in enumerate(NAMES)} | {"kind": kinds})
    parquet.write_table(table, folder / "t.parquet", row_group_size=7)
    return folder / "t.parquet"


def made(path: Path, **attributes: Any) -> type[Table]:
    return type("Own", (Table,), {"name": "own", "table": str(path), **attributes})


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_rows_arrive_standardised_by_the_training_rows(
    kind: str, project: Path, own: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tabular, "ROWS", 5)  # so that there are several pieces
    own(made(both(project, kind), label="kind", test_share=0.3, seed=4))
    manifest = prepare("own", project / "data")
    parts = drawn(len(X), 0.3, 4)
    mean, std = X[parts["train"]].mean(0), X[parts["train"]].std(0)
    assert manifest.shape == (3,)
    assert (manifest.levels, manifest.bits, manifest.unit) == (None, None, "rows")
    assert [column.name for column in manifest.columns or ()] == NAMES
    assert np.allclose([column.mean for column in manifest.columns or ()], mean, rtol=1e-14)
    assert np.allclose([column.std for column in manifest.columns or ()], std, rtol=1e-12)
    labels = read_labels("own", project / "data")
    assert labels.names == sorted(KINDS)
    for split, indices in parts.items():
        vectors = load_vectors("own", split, project / "data")
        assert vectors[:].dtype == torch.float32
        assert np.allclose(vectors[:].numpy(), (X[indices] - mean) / std, rtol=1e-6, atol=1e-6)
        assert [labels.names[label] for label in getattr(labels, split)] == [KINDS[i % 3] for i in indices]
    assert verify("own", project / "data") == read_manifest("own", project / "data") == manifest
    (entry,) = [entry for entry in overview(project / "data") if entry.name == "own"]
    assert (entry.state, entry.shape, entry.images) == ("ready", (3,), (16, 7))
    with pytest.raises(ConfigError, match="looks at images, and data set own has vectors"):
        load("own", "train", project / "data")
    flip(project / "data/own/train.pth")
    with pytest.raises(DataError, match=r"train\.pth is"):
        verify("own", project / "data")


def test_csv_and_parquet_give_the_same(project: Path, own: Register) -> None:
    hashes = []
    for kind in ("csv", "parquet"):
        own(made(both(project, kind), columns=["price", "length"]))
        manifest = prepare("own", project / kind)
        hashes.append(manifest.sha256)
        assert [column.name for column in manifest.columns or ()] == ["price", "length"]
        assert read_labels("own", project / kind) == Labels()
    assert hashes[0] == hashes[1]


def test_other_columns_prepare_anew(project: Path, own: Register, capsys: pytest.CaptureFixture[str]) -> None:
    table = both(project, "csv")
    for columns, again in ((["length", "width"], False), (["length", "width"], True), (["width", "length"], False)):
        own(made(table, columns=columns))
        capsys.readouterr()
        prepare("own", project / "data")
        assert ("already prepared" in capsys.readouterr().out) is again


def test_whole_numbers_are_classes_without_names(project: Path, own: Register) -> None:
    rows = [[i * i, 1 / (i + 1), i % 3] for i in range(10)]
    table = csv_of(project / "t.tsv", rows, ["a", "b", "c"], "\t")
    own(made(table, label="c", delimiter="\t"))
    prepare("own", project / "data")
    labels = read_labels("own", project / "data")
    assert labels.names is None
    assert labels.test == [i % 3 for i in drawn(10, 0.1)["test"]]


LINES = {
    "length,width\n1,2\n3,\n": r"row 2 \(line 3\), column 'width': is empty; mend it",
    "length,width\n1,2\n\n3,x\n": r"row 2 \(line 4\), column 'width': is 'x', no number",
    "length,width\n1,NaN\n3,4\n": r"row 1 \(line 2\), column 'width': is nan, not finite",
    "length,width\n1,2\n-inf,4\n": r"row 2 \(line 3\), column 'length': is -inf, not finite",
    "length,width\n1,2\n3,4,5\n": r"row 2 \(line 3\): has 3 cells, and there are 2 headings",
    "length,width\n1,2\n3\n": r"row 2 \(line 3\): has 1 cells",
    "length,length\n1,2\n3,4\n": r"two columns 'length'",
    "length,width\n": "has 0 rows; own needs at least two",
    "length,width\n1,2\n": "has 1 rows",
    "length,width\n1,2\n3,2\n5,2\n": r"training rows of .*: column 'width' is 2\.0 in every row",
    "length,width\n1,1e200\n2,-1e200\n5,2\n": "column 'width' has no standard deviation in float64",
    "": "is empty; its first line has to name the columns",
    'length,width\n1,"2\n': "line 2: is no CSV",
    "length,width\n1,2,\xff\n": "is no text in UTF-8",
}


@pytest.mark.parametrize("content", LINES)
def test_what_is_wrong_with_a_csv_is_named(content: str, project: Path, own: Register) -> None:
    (project / "t.csv").write_bytes(content.encode("latin-1"))
    own(made(project / "t.csv"))
    with pytest.raises(DataError, match=LINES[content]) as error:
        prepare("own", project / "data")
    assert "t.csv" in str(error.value)
    assert not (project / "data/own/manifest.json").exists()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [1.0, 2.0, None]}, r"t\.parquet, row 3, column 'a': is empty"),
        ({"a": [1.0, float("nan"), 2.0]}, r"row 2, column 'a': is nan, not finite"),
        ({"a": ["1", "2", "3"]}, "column 'a': is of type string, no numbers; leave it out"),
        ({"a": [True, False, True]}, "column 'a': is of type bool"),
        (None, r"t\.parquet is damaged or no parquet file"),
    ],
)
def test_what_is_wrong_with_a_parquet_file_is_named(
    columns: dict[str, list[Any]] | None, message: str, project: Path, own: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tabular, "ROWS", 2)
    path = project / "t.parquet"
    if columns is None:
        path.write_bytes(b"PAR1 and no more")
    else:
        parquet.write_table(arrow.table(columns), path)
    own(made(path))
    with pytest.raises(DataError, match=message):
        prepare("own", project / "data")


@pytest.mark.parametrize(
    ("attributes", "kind", "message"),
    [
        ({"columns": ["length", "height"]}, DataError, "has no column 'height'; it has: length, width, price, kind"),
        ({"label": "species"}, DataError, "has no column 'species'"),
        ({"columns": ["length", "length"]}, ConfigError, "a column stands twice"),
        ({"columns": []}, ConfigError, r"has columns = \[\]"),
        ({"columns": ["kind"]}, DataError, r"row 1 \(line 2\), column 'kind': is 'cat', no number"),
        ({"delimiter": ";"}, DataError, "has no column 'kind'; it has: length,width,price,kind"),
        ({"table": "~/nowhere.csv"}, DataError, r"nowhere\.csv not found; put the table there"),
        ({"test_share": 1.0}, ConfigError, "has test_share = 1.0"),
    ],
)
def test_what_is_wrong_with_a_class_is_said(
    attributes: dict[str, Any], kind: type[AcfError], message: str, project: Path, own: Register
) -> None:
    own(made(both(project, "csv"), **{"label": "kind" if "columns" not in attributes else None, **attributes}))
    with pytest.raises(kind, match=message):
        prepare("own", project / "data")


def test_too_many_classes(project: Path, own: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acf.data.sources.table.MOST_CLASSES", 2)
    own(made(both(project, "csv"), label="kind"))
    with pytest.raises(DataError, match="more than 2 different values, too many for classes"):
        prepare("own", project / "data")


@pytest.mark.parametrize(
    ("values", "names"),
    [([0, 1, 2], None), ([1, 2, 3], ["1", "2", "3"]), ([2001, 9, 10**30], ["9", "2001", str(10**30)])],
)
def test_numbers_that_are_no_labels_are_names(
    values: list[int], names: list[str] | None, project: Path, own: Register
) -> None:
    rows = [[i, i * i, values[i % 3]] for i in range(9)]
    own(made(csv_of(project / "t.csv", rows, ["a", "b", "kind"]), label="kind"))
    prepare("own", project / "data")
    assert read_labels("own", project / "data").names == names


@pytest.mark.parametrize("missing", ["", " ", float("nan")])
def test_a_row_without_class(missing: object, project: Path, own: Register) -> None:
    path = project / "t.parquet"
    parquet.write_table(
        arrow.table({"a": [1.0, 2.0, 4.0], "kind": [type(missing)(1), type(missing)(2), missing]}), path
    )
    own(made(path, label="kind"))
    with pytest.raises(DataError, match="column 'kind', row 3: is empty"):
        prepare("own", project / "data")


def test_parquet_needs_a_package(project: Path, own: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    own(made(both(project, "parquet")))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackageError, match=r"needs pyarrow, which is not installed: pip install 'acf\[data\]'"):
        prepare("own", project / "data")


def test_a_class_of_images_is_no_table(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    monkeypatch.setitem(TABLES, "own", "acf.data.sources.digits:Digits")
    with pytest.raises(ConfigError, match="is no subclass of Table"):
        prepare("own", project / "data")
