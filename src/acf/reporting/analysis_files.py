"""The files that analyses write, and the form of what each of them found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from acf.errors import AcfError
from acf.registry import SECTIONS, resolve
from acf.reporting.page_parts import AnalysisPart
from acf.reporting.result_files import form_fault, read_result, require_form
from acf.reporting.schemas import Name, NotNegative, Stored
from acf.settings.params import Run

Form = TypeVar("Form", bound=BaseModel)


class AnalysisFile(Stored):
    """`analyses/<experiment>/<variant>/seed<k>/<analysis>.json` (docs/architecture.md)."""

    analysis: Name
    experiment: Name
    dataset: Name
    variant: Name
    seed: int
    settings: dict[str, Any]
    found: dict[str, Any]
    refuted: str = ""
    """What has been proven of the model and is refuted by what was found."""
    seconds: NotNegative
    device: str
    train_recipe: str | None
    recipe: Name
    versions: dict[str, str]


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


def read_analysis(path: Path, name: str, run: Run, dataset: str, train_recipe: str | None) -> AnalysisFile:
    """Return the file of an analysis of the model of `run`, whose key `found` has the form of its section.

    Raises:
        AcfError: it is missing or damaged, of another run, or of another training than the model's.
    """
    command = f"acf {name} {run.options}"
    content = read_result(path, AnalysisFile, {"analysis": name, **run.identity(dataset)}, command)
    if fault := form_fault(content.found, part_of(name).form):
        raise AcfError(f"{path}: found{fault}; run: {command}")
    if content.train_recipe != train_recipe:
        raise AcfError(f"{path} is of another training than the model's; run: {command}")
    return content
