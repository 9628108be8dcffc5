"""CSV and parquet files, read in pieces; every cell that is no finite number is named with its row and column."""

import csv
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from typing_extensions import override

from acf.errors import DataError, MissingPackageError, shown

ROWS = 2**15
"""Rows that are read at a time."""
PARQUET = (".parquet", ".pq")
KNOWN = 12
"""Columns that a message names at most."""


class Rows(NamedTuple):
    """Some rows of a table.

    Attributes:
        values: (n, D), float64.
        labels: of each row; empty where none were asked for.
    """

    values: np.ndarray
    labels: Sequence[Any]


class TableFile(ABC):
    """A table with named columns.

    Attributes:
        path: of the file.
        columns: their names, each once.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, list(columns)
        twice = sorted({name for name in self.columns if self.columns.count(name) > 1})
        if twice:
            raise DataError(f"{path} has two columns {shown(twice[0])}; rename one")

    @abstractmethod
    def rows(self, columns: Sequence[str], label: str | None = None) -> Iterator[Rows]:
        """Yield all rows in order, the values of `columns` as numbers and those of `label` as they are.

        Raises:
            DataError: a cell is empty, no number or not finite, or the file is damaged; names row and column.
        """

    def require(self, columns: Sequence[str]) -> None:
        """Raise a `DataError` that lists the known columns unless the table has all of `columns`."""
        if missing := [name for name in columns if name not in self.columns]:
            known = ", ".join(self.columns[:KNOWN]) + (", ..." if len(self.columns) > KNOWN else "")
            raise DataError(f"{self.path} has no column {shown(missing[0])}; it has: {known}")


def table_file(path: Path, delimiter: str = ",") -> TableFile:
    """Open a table: parquet where the name ends so, and CSV with a line of headings otherwise.

    Raises:
        DataError: the file is missing, damaged or empty, or pyarrow, which reads parquet, is.
    """
    if not path.is_file():
        raise DataError(f"{path} not found; put the table there, or mend `table` of the data set's class")
    return Parquet(path) if path.suffix.lower() in PARQUET else Csv(path, delimiter)


class Csv(TableFile):
    """Text in UTF-8 with a line of headings. Empty lines do not count."""

    def __init__(self, path: Path, delimiter: str) -> None:
        self._delimiter = delimiter
        _, heading = next(self._lines(path), (0, []))
        if not heading:
            raise DataError(f"{path} is empty; its first line has to name the columns")
        super().__init__(path, heading)

    @override
    def rows(self, columns: Sequence[str], label: str | None = None) -> Iterator[Rows]:
        self.require([*columns, *([] if label is None else [label])])
        chosen = [self.columns.index(name) for name in columns]
        lines = self._lines(self.path)
        next(lines)
        row = 0
        for piece in _batched(lines, ROWS):
            for line, cells in piece:
                row += 1
                if len(cells) != len(self.columns):
                    raise DataError(
                        f"{self.path}, row {row} (line {line}): has {len(cells)} cells, and there are "
                        f"{len(self.columns)} headings; mend it"
                    )
            places = _Places(self.path, row - len(piece), [line for line, _ in piece])
            text = np.array([[cells[i] for i in chosen] for _, cells in piece], dtype=np.str_)
            labels = [] if label is None else [cells[self.columns.index(label)] for _, cells in piece]
            yield Rows(_numbers(text, places, columns), labels)

    def _lines(self, path: Path) -> Iterator[tuple[int, list[str]]]:
        """Yield number and cells of each line that is not empty."""
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, delimiter=self._delimiter, strict=True)
                for cells in reader:
                    if cells:
                        yield reader.line_num, cells
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: is no CSV ({error}); mend it") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is no text in UTF-8: {error.reason} at byte {error.start}; convert it") from None
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from None


@dataclass(frozen=True)
class _Places:
    """Where the rows of a piece stand, for messages: after `before` rows, in CSV on these lines."""

    path: Path
    before: int
    lines: Sequence[int] = ()

    def fault(self, i: int, column: str, what: str) -> DataError:
        line = f" (line {self.lines[i]})" if self.lines else ""
        return DataError(
            f"{self.path}, row {self.before + i + 1}{line}, column {shown(column)}: {what}; mend it, or leave the row "
            "out of the table"
        )

    def require_finite(self, values: np.ndarray, columns: Sequence[str]) -> None:
        wrong = np.argwhere(~np.isfinite(values)).tolist()
        if wrong:
            i, j = wrong[0]
            raise self.fault(i, columns[j], f"is {values[i, j]}, not finite")


def _batched(lines: Iterator[tuple[int, list[str]]], size: int) -> Iterator[list[tuple[int, list[str]]]]:
    while piece := list(islice(lines, size)):
        yield piece


def _numbers(text: np.ndarray, places: _Places, columns: Sequence[str]) -> np.ndarray:
    """Return cells (n, D) as float64 numbers, or name the first that is none."""
    try:
        values = text.astype(np.float64)
    except ValueError:
        for i, row in enumerate(text.tolist()):
            for name, cell in zip(columns, row, strict=True):
                try:
                    float(cell)
                except ValueError:
                    what = f"is {shown(cell, 40)}, no number" if cell.strip() else "is empty"
                    raise places.fault(i, name, what) from None
        raise
    places.require_finite(values, columns)
    return values


class Parquet(TableFile):
    """A parquet file, read by pyarrow: columns of whole, real or decimal numbers, and labels of any type."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow as arrow
            from pyarrow import parquet
        except ImportError:
            raise MissingPackageError(
                f"{path} is read by pyarrow, which is not installed: pip install 'acf[data]'"
            ) from None
        self._error: type[Exception] = arrow.ArrowException
        try:
            self._file = parquet.ParquetFile(path)
        except (self._error, OSError) as error:
            raise self._damaged(path, error) from None
        self._types = {field.name: field.type for field in self._file.schema_arrow}
        super().__init__(path, self._file.schema_arrow.names)

    @override
    def rows(self, columns: Sequence[str], label: str | None = None) -> Iterator[Rows]:
        from pyarrow import compute, float64, types

        wanted = [*columns, *([] if label is None or label in columns else [label])]
        self.require(wanted)
        for name in columns:
            kind = self._types[name]
            if not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)):
                raise DataError(f"{self.path}, column {shown(name)}: is of type {kind}, no numbers; leave it out")
        before = 0
        try:
            for batch in self._file.iter_batches(ROWS, columns=wanted):
                places = _Places(self.path, before)
                for name in wanted:
                    if batch.column(name).null_count:
                        i = compute.index(compute.is_null(batch.column(name)), True).as_py()
                        raise places.fault(i, name, "is empty")
                values = np.stack(
                    [batch.column(name).cast(float64(), safe=False).to_numpy() for name in columns], axis=1
                )
                places.require_finite(values, columns)
                yield Rows(values, [] if label is None else batch.column(label).to_pylist())
                before += batch.num_rows
        except (self._error, OSError) as error:
            raise self._damaged(self.path, error) from None

    @staticmethod
    def _damaged(path: Path, error: Exception) -> DataError:
        return DataError(f"{path} is damaged or no parquet file: {str(error).partition(chr(10))[0]}; replace it")
