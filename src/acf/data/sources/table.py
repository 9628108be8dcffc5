"""A CSV or parquet file: a data set of one's own, of vectors of real numbers, divided by a seed."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from acf.data.download.downloads import Downloads
from acf.data.download.progress import shown
from acf.data.formats.npy import NpyFile, NpyWriter
from acf.data.formats.tabular import TableFile, table_file
from acf.data.prepared.labels import Labels
from acf.data.prepared.manifest import SPLITS, Split
from acf.data.sources.arrays import write_parts
from acf.data.sources.split import Divided
from acf.errors import DataError

MOST_CLASSES = 10_000
"""A column of more different values is no class."""


class Table(Divided):
    """Base of data sets from a table: each row is a vector of real numbers, one for each column.

    The rows are divided by a seed, and every column is standardised by mean and standard deviation of the training rows
    (`acf.data.formats.standardise`), which the manifest keeps: densities are those of standardised values. A table that
    changes under the same name is not noticed; remove the data set's folder below `data` then.

    Attributes:
        table: path of the file, parquet if it ends with `.parquet`, otherwise CSV with a line of headings; ~ is the
            home folder.
        columns: names of the columns that are used, in this order; None for all but `label`.
        label: name of the column with the class of each row: whole numbers 0, ..., K - 1, or anything else as names;
            None for no labels.
        delimiter: between cells of CSV.
    """

    table: ClassVar[str]
    columns: ClassVar[Sequence[str] | None] = None
    label: ClassVar[str | None] = None
    delimiter: ClassVar[str] = ","
    shape = None
    levels = None

    def __init__(self) -> None:
        self._classes = _Classes()
        self._names: list[str] = []

    @property
    def source(self) -> str:  # type: ignore[override]
        """File, columns and division, which the manifest keeps: data of other columns are prepared anew."""
        columns = "all columns" if self.columns is None else f"columns {', '.join(self.columns)}"
        label = "" if self.label is None else f", label {self.label}"
        delimiter = "" if self.delimiter == "," else f", delimiter {self.delimiter!r}"
        return (
            f"{self.table}, {columns}{label}{delimiter}; {self.test_share} of it held out for testing, seed {self.seed}"
        )

    @property
    def names(self) -> list[str]:
        """Names of the columns, in the order of the values of each vector; known once `export` was called."""
        return self._names

    def export(self, downloads: Downloads, scratch: Path) -> Mapping[Split, Path]:
        """Write the rows of each split, as they stand in the table, to a `.npy` file of its own, float64 (N, D).

        Raises:
            DataError: the file is missing or damaged, lacks a column, has no two rows, or a cell that is no finite
                number; names row and column.
        """
        path = Path(self.table).expanduser()
        downloads.used.append(path)
        file = table_file(path, self.delimiter)
        self._names = self._chosen(file)
        everything = scratch / "rows.npy"
        with NpyWriter(everything, (len(self._names),), np.float64) as writer:
            for piece in shown(self._values(file), "reading rows"):
                writer.append(piece)
        if writer.count < 2:
            raise DataError(f"{path} has {writer.count} rows; {self.name} needs at least two")
        parts = write_parts(NpyFile(everything, np.float64), scratch, self.divide)
        everything.unlink()
        return parts

    def labels(self, downloads: Downloads) -> Labels:
        """Return what stands in the column `label`, which `export` has read, divided as the rows."""
        if self.label is None:
            return Labels()
        numbers, names = self._classes.numbered()
        chosen = self.divide(len(numbers))
        return Labels(names=names, **{split: numbers[chosen[split]].tolist() for split in SPLITS})

    def _chosen(self, file: TableFile) -> list[str]:
        if self.label is not None:
            file.require([self.label])
        names = [name for name in file.columns if name != self.label] if self.columns is None else list(self.columns)
        file.require(names)
        if not names:
            raise DataError(f"{file.path} has no column beside {self.label!r}; a vector needs at least one value")
        return names

    def _values(self, file: TableFile) -> Iterable[np.ndarray]:
        self._classes = _Classes()
        row = 0
        for values, labels in file.rows(self._names, self.label):
            self._classes.add(labels, f"{file.path}, column {self.label!r}", row)
            row += len(values)
            yield values


class _Classes:
    """The classes of all rows, each different value held once."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._codes = array("l")

    def add(self, values: Sequence[Any], place: str, start: int) -> None:
        """Add the classes of the next rows.

        Raises:
            DataError: one is empty, or there are too many different ones for classes.
        """
        for i, value in enumerate(values, start=start + 1):
            text = str(value).strip()
            if not text or value != value:  # NaN is no class
                raise DataError(f"{place}, row {i}: is empty; mend it, or leave the row out of the table")
            self._codes.append(self._known.setdefault(text, len(self._known)))
        if len(self._known) > MOST_CLASSES:
            raise DataError(f"{place} has more than {MOST_CLASSES} different values, too many for classes")

    def numbered(self) -> tuple[np.ndarray, list[str] | None]:
        """Return the label of each row, and the names of the classes, which the numbers 0, ..., K - 1 do not have."""
        codes = np.frombuffer(self._codes, dtype=np.dtype("l")) if self._codes else np.empty(0, np.int64)
        if {str(number) for number in range(len(self._known))} == self._known.keys():
            return np.array([int(text) for text in self._known], np.int64)[codes], None
        numbers = all(text.isascii() and text.isdigit() for text in self._known)
        names = sorted(self._known, key=int) if numbers else sorted(self._known)
        places = {name: i for i, name in enumerate(names)}
        return np.array([places[text] for text in self._known], np.int64)[codes], names
