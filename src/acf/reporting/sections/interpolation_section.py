"""The report's section on paths between test images."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import TYPE_CHECKING

from pydantic import Field

from acf.reporting.schemas import Number, Stored
from acf.reporting.section import Analysed, AnalysisPart, Figure, Section
from acf.reporting.style import Looks, draw_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Path(Stored):
    """Points of paths of one kind."""

    t: list[Number] = Field(min_length=2)
    bits_per_dim: list[list[Number]]


class Interpolation(Stored):
    """What the analysis found of one model."""

    paths: dict[str, Path]


def section_of(analysed: Analysed[Interpolation], bases: Mapping[str, str | None], looks: Looks) -> Section:
    """Return bits/dim along the paths, mean over pairs, and the pictures."""

    def draw(axes: Axes) -> None:
        for variant, models in analysed.items():
            for model in models:
                for kind, path in model.found.paths.items():
                    mean = [fmean(values) for values in zip(*path.bits_per_dim, strict=True)]
                    look, style = looks[variant], "-" if kind == "linear" else "--"
                    label = f"{variant}, {kind}"
                    axes.plot(path.t, mean, color=look.colour, marker=look.marker, linestyle=style, ms=4, label=label)
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
