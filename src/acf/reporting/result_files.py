"""Reading result files, never without checking them: JSON and tables in the forms of `schemas.py`."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from acf.errors import AcfError, shown

Schema = TypeVar("Schema", bound=BaseModel)

CONFLICT = re.compile(r"(<{7}|\|{7}|={7}|>{7})( |$)")
"""Lines that git writes between the two sides of a merge conflict."""


def read_result(path: Path, schema: type[Schema], identity: Mapping[str, Any], command: str) -> Schema:
    """Return the content of a JSON file in the form of `schema`.

    Args:
        path: the file.
        schema: what it has to hold.
        identity: keys whose values follow from the file's place, such as its experiment; None is taken for any value.
        command: what writes the file again, for messages.

    Raises:
        AcfError: the file cannot be read, is not JSON, does not have this form, or is of something else; the message
            names file, key and command.
    """
    try:
        found = schema.model_validate_json(_content(path, command))
    except ValidationError as error:
        raise AcfError(f"{path}{_fault(error)}; run: {command}") from None
    for key, value in identity.items():
        if (said := getattr(found, key)) not in (value, None):
            raise AcfError(f"{path} is of {key} {shown(said)} instead of {value!r}; run: {command}")
    return found


def form_fault(content: Mapping[str, Any], schema: type[BaseModel]) -> str | None:
    """Return where content does not have the form of `schema` and why, to stand behind a name; None if it has."""
    try:
        schema.model_validate(dict(content))
    except ValidationError as error:
        return _fault(error)
    return None


def require_form(content: Mapping[str, Any], schema: type[BaseModel], path: Path) -> None:
    """Check what a stage is about to write to `path`, so that nobody has to read a file that is wrong.

    Raises:
        AcfError: the content does not have the form of `schema`; the message names the key.
    """
    if fault := form_fault(content, schema):
        raise AcfError(
            f"{path} is not written: what was measured is not possible{fault}; train the model again, and if that does "
            "not help, report it"
        )


def read_table(path: Path, schema: type[Schema], command: str, *, more_columns: bool = False) -> list[Schema]:
    """Return the rows of a CSV file with a header line, at least one, in the form of `schema`.

    Args:
        path: the file.
        schema: of a row; its fields are the columns, of which the table need not have those in its `may_lack`.
        command: what writes the file again, for messages.
        more_columns: whether the file may have columns that the schema does not name.

    Raises:
        AcfError: the file cannot be read, is not such a table, or a row does not have this form; the message names
            file, line, column and command.
    """
    try:
        text = _content(path, command).decode("utf-8")
    except UnicodeDecodeError as error:
        raise AcfError(f"{path} is not a table: {error.reason} at byte {error.start}; run: {command}") from None
    return parse_table(text, path, schema, command, more_columns=more_columns)


def parse_table(
    text: str, place: Path | str, schema: type[Schema], command: str, *, more_columns: bool = False
) -> list[Schema]:
    """Return the rows of a table in the form of `schema`, as `read_table` does; `place` is its name in messages.

    Raises:
        AcfError: as `read_table`.
    """
    for number, line in enumerate(text.splitlines(), start=1):
        if CONFLICT.match(line):
            raise AcfError(f"{place}, line {number}, is a mark of a merge conflict ({line[:20]}); run: {command}")
    if text and not text.endswith("\n"):
        raise AcfError(f"{place} ends in the middle of a line; run: {command}")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        may_lack: Sequence[str] = getattr(schema, "may_lack", ())
        if fault := _header_fault(header, list(schema.model_fields), more_columns, may_lack):
            raise AcfError(f"{place} is not the table it should be: {fault}; run: {command}")
        rows = [_row(cells, header, schema, f"{place}, line {reader.line_num}", command) for cells in reader]
    except csv.Error as error:
        raise AcfError(f"{place} is not a table: line {reader.line_num}: {error}; run: {command}") from None
    if not rows:
        raise AcfError(f"{place} has no rows; run: {command}")
    return rows


def _content(path: Path, command: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise AcfError(f"{path} cannot be read: {error.strerror or error}; run: {command}") from None


def _header_fault(
    header: Sequence[str], columns: Collection[str], more_columns: bool, may_lack: Collection[str]
) -> str:
    if not header:
        return "it is empty"
    if absent := [column for column in columns if column not in header and column not in may_lack]:
        return f"it lacks the columns {', '.join(absent)}"
    if len(set(header)) < len(header):
        return "a column stands twice"
    if not more_columns and (unknown := [column for column in header if column not in columns]):
        return f"it has unknown columns: {', '.join(unknown)[:80]}"
    return ""


def _row(cells: Sequence[str], header: Sequence[str], schema: type[Schema], place: str, command: str) -> Schema:
    if len(cells) != len(header):
        raise AcfError(f"{place} has {len(cells)} cells instead of {len(header)}; run: {command}")
    values = dict(zip(header, cells, strict=True))
    try:
        return schema.model_validate({name: values[name] for name in schema.model_fields if name in values})
    except ValidationError as error:
        raise AcfError(f"{place}{_fault(error)}; run: {command}") from None


def _fault(error: ValidationError) -> str:
    """Return where the first fault is and what it is, to stand behind the name of the file."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "json_invalid":
        return f" is not JSON ({message.removeprefix('Invalid JSON: ')})"
    where = "".join(f"{part}." for part in first["loc"]).rstrip(".")
    return f": {where}: {message}" if where else f": {message}"
