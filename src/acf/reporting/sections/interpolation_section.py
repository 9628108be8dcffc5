"""The report's section on paths between test images."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import TYPE_CHECKING

from pydantic import Field

from acf.reporting.schemas import Number, Stored
from acf.reporting.section import Analysed, AnalysisPart, Figure, Section
from acf.reporting.style import draw_figure, looks

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Path(Stored):
    """Points of paths of one kind."""

    t: list[Number] = Field(min_length=2)
    bits_per_dim: list[list[Number]]


class Interpolation(Stored):
    """What the analysis found of one model."""

    paths: dict[str, Path]


def section_of(analysed: Analysed[Interpolation], bases: Mapping[str, str | None]) -> Section:
    """Return bits/dim along the paths, mean over pairs, and the pictures."""
    appearance = looks(list(analysed))

    def draw(axes: Axes) -> None:
        for variant, models in analysed.items():
            for model in models:
                for kind, path in model.found.paths.items():
                    mean = [fmean(values) for values in zip(*path.bits_per_dim, strict=True)]
                    style = "-" if kind == "linear" else "--"
                    colour, marker = appearance[variant]
                    axes.plot(path.t, mean, style, color=colour, marker=marker, ms=4, label=f"{variant}, {kind}")
        axes.set(xlabel="place on the path", ylabel="bits/dim")

    curve = draw_figure(
        "interpolation-likelihood", "bits/dim along paths between test images, mean over pairs", "", 3.4, draw
    )
    pictures = [
        Figure(f"interpolation-{variant}", f"paths between test images by {variant}", variant, model.picture)
        for variant, models in analysed.items()
        for model in models
        if model.picture is not None
    ]
    return Section("interpolation", "Interpolation", figures=[curve, *pictures])


section = AnalysisPart(Interpolation, section_of)
