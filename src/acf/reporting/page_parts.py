"""What a report is made of: sections with sentences, figures and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from pydantic import BaseModel

from acf.reporting.findings_file import Measure, PairFinding
from acf.settings.params import Run

if TYPE_CHECKING:
    from acf.reporting.style import Looks

Form = TypeVar("Form", bound=BaseModel)


@dataclass(frozen=True)
class Figure:
    """One figure, in the report and as files of its own.

    Attributes:
        name: of its files, `figures/<name>.png` and `.svg`.
        alt: what it shows, for those who do not see it.
        caption: the text below it.
        png: content of the PNG file.
        svg: content of the SVG file; None for pictures made of pixels, such as grids of images.
    """

    name: str
    alt: str
    caption: str
    png: bytes
    svg: bytes | None = None


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        headings: of the columns.
        rows: the texts; the first cell of a row is its heading.
        caption: what the table shows; may be empty.
        left: number of columns whose texts stand to the left.
        folded: whether the page shows it only when it is asked for, as it is long.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    left: int = 1
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        name: its anchor in the page: letters and -.
        title: its heading.
        sentences: what was found, a paragraph.
        tables: shown before the figures.
        figures: shown side by side where there is room.
        notes: how it was measured and how to read it.
        pairs: every variant against its base, in numbers, for other documents.
        measures: other numbers of variants, for the same.
    """

    name: str
    title: str
    sentences: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()
    pairs: Sequence[PairFinding] = ()
    measures: Sequence[Measure] = ()


@dataclass(frozen=True)
class AnalysedModel(Generic[Form]):
    """What an analysis found of one model.

    Attributes:
        run: the model.
        found: in the form of the analysis.
        settings: of the analysis.
        picture: content of the PNG file, enlarged; None if the analysis has none.
    """

    run: Run
    found: Form
    settings: Mapping[str, object]
    picture: bytes | None = None


Analysed = Mapping[str, Sequence[AnalysedModel[Form]]]
"""Per variant, in the order of params.yaml, its analysed models by seed; empty where there is none."""


def pictures(analysed: Analysed[Form], name: str, what: str, caption: str) -> list[Figure]:
    """Return the pictures that an analysis has made of models, a figure each.

    Args:
        analysed: the models.
        name: of the analysis.
        what: is shown of a model, for those who do not see it.
        caption: goes on after the variant.
    """
    return [
        Figure(f"{name}-{variant}", f"{what} by {variant}", f"{variant}: {caption}", model.picture)
        for variant, models in analysed.items()
        for model in models
        if model.picture is not None
    ]


@dataclass(frozen=True)
class AnalysisPart(Generic[Form]):
    """How the report treats an analysis.

    Attributes:
        form: what the analysis stores under `found`.
        section: makes the section from what was found of all models, the base of each variant (None where it has none),
            and how each variant is drawn (`reporting/style.py`).
    """

    form: type[Form]
    section: Callable[[Analysed[Form], Mapping[str, str | None], Looks], Section]
