"""The files that analyses write, and the form of what each of them found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from acf.errors import AcfError
from acf.registry import SECTIONS, resolve
from acf.reporting.page_parts import AnalysisPart
from acf.reporting.result_files import form_fault, require_form
from acf.reporting.schemas import Name, NotNegative, OfModel

Form = TypeVar("Form", bound=BaseModel)


class AnalysisFile(OfModel):
    """`analyses/<experiment>/<variant>/seed<k>/<analysis>.json` (docs/architecture.md)."""

    analysis: Name
    settings: dict[str, Any]
    found: dict[str, Any]
    refuted: str = ""
    """What has been proven of the model and is refuted by what was found."""
    seconds: NotNegative
    recipe: Name


def part_of(name: str) -> AnalysisPart[Any]:
    """Return the report's part on the analysis `name`."""
    part: AnalysisPart[Any] = resolve(SECTIONS, name, "section of the report")
    return part


def require_found(name: str, found: Any, path: Path) -> None:
    """Check that what an analysis is about to write has the form that the report reads.

    Raises:
        AcfError: it has not; the message names the key.
    """
    require_form(json.loads(json.dumps(found)), part_of(name).form, path)  # the forms know lists, not tuples


def check_found(name: str, content: AnalysisFile, path: Path, command: str) -> None:
    """Check that what a file says was found has the form of its section.

    Raises:
        AcfError: it has not; names the file, the key, and the command that writes it again.
    """
    if fault := form_fault(content.found, part_of(name).form):
        raise AcfError(f"{path}: found{fault}; run: {command}")
