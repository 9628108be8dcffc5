"""The report's section on paths between test images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np
from pydantic import Field, model_validator

from acf.reporting.page_parts import Analysed, AnalysisPart, Figure, Section, Table, pictures
from acf.reporting.paired_rows import (
    PairedRows,
    against_base,
    mean_text,
    on_errors,
    paired_rows,
    require_alike,
)
from acf.reporting.schemas import NotNegative, Number, Stored
from acf.reporting.style import Looks, draw_figure
from acf.reporting.wording import ABSENT, scientific

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WAYS = {"spherical": "great circles", "linear": "straight lines"}
WORDS = ("lower", "higher", " bits/dim")


class Path(Stored):
    """Paths of one kind."""

    t: list[Number] = Field(min_length=2)
    bits_per_dim: list[list[Number]] = Field(min_length=1)
    outside: NotNegative

    @model_validator(mode="after")
    def _as_long_as_t(self) -> Self:
        if any(len(values) != len(self.t) for values in self.bits_per_dim):
            raise ValueError("a path has another number of points than there are places")
        return self

    @property
    def excess(self) -> np.ndarray:
        """Bits/dim minus those on the straight line between the values at the ends, (pairs, steps)."""
        bits, t = np.asarray(self.bits_per_dim), np.asarray(self.t)
        return bits - (1 - t) * bits[:, :1] - t * bits[:, -1:]

    @property
    def middle(self) -> np.ndarray:
        """Excess halfway, (pairs,): at t = 1/2, or the mean of the two points beside it."""
        steps = len(self.t)
        return self.excess[:, (steps - 1) // 2 : steps // 2 + 1].mean(1)

    @property
    def ends(self) -> np.ndarray:
        """Mean bits/dim of the two ends, (pairs,)."""
        bits = np.asarray(self.bits_per_dim)
        return (bits[:, 0] + bits[:, -1]) / 2


class Interpolation(Stored):
    """What the analysis found of one model."""

    linear: Path
    spherical: Path
    round_trip: NotNegative
    inverse_bound: NotNegative

    def path(self, way: str) -> Path:
        """Return the paths of a kind."""
        return self.linear if way == "linear" else self.spherical

    def middle(self, way: str) -> np.ndarray:
        """Return the excess halfway on paths of a kind, (pairs,)."""
        return self.path(way).middle


def section_of(analysed: Analysed[Interpolation], bases: Mapping[str, str | None], looks: Looks) -> Section:
    """Return bits/dim along the paths, how much they exceed those at the ends, and the pictures."""
    present = {variant: models for variant, models in analysed.items() if models}
    if not present:
        return Section("interpolation", "Interpolation")
    require_alike("interpolation", analysed, lambda found: (len(found.linear.bits_per_dim), *found.linear.t))
    pairs = len(next(iter(present.values()))[0].found.linear.bits_per_dim)
    middles = {way: paired_rows(analysed, bases, partial(Interpolation.middle, way=way), 2) for way in WAYS}
    found = [model.found for models in present.values() for model in models]
    notes = [
        "A path leads from f(x) to f(y) in latent space, and f^-1 makes images of its points. On straight lines the "
        "norm of the latent vector falls on the way; on great circles direction and norm go evenly from one end to the "
        "other. Bits/dim are those of the images, whose excess is counted from the straight line between the two ends.",
        "Fewer bits/dim do not mean better images: smooth images are likely under any flow.",
        f"The ends give the test images back within {scientific(max(one.round_trip for one in found))} grey levels; "
        f"each block was inverted with a proven error of at most {scientific(max(one.inverse_bound for one in found))}"
        f". On the way at most {max(one.path(w).outside for one in found for w in WAYS):.1%} of the values left the "
        "range of pixels, and were put on its border.",
    ]
    shown = pictures(
        {variant: models[:1] for variant, models in present.items()},
        "interpolation",
        "images on paths between test images",
        "straight lines above great circles",
    )
    return Section(
        "interpolation",
        "Interpolation",
        sentences=_sentences(analysed, middles, pairs),
        tables=[_table(present, bases, middles, pairs)],
        figures=[*(_curve(present, way, looks) for way in WAYS), *shown],
        notes=notes,
        pairs=[
            pair
            for way, rows in middles.items()
            for pair in rows.findings("interpolation", f"{pairs} pairs of test images", WAYS[way])
        ],
    )


def _sentences(analysed: Analysed[Interpolation], middles: Mapping[str, PairedRows], pairs: int) -> list[str]:
    sentences = []
    for way, rows in middles.items():
        means = {variant: rows.mean(variant) for variant in rows.rows}
        least, most = (pick(means, key=lambda variant: means[variant].mean) for pick in (min, max))
        ends = [f"{mean_text(means[variant])} ({variant})" for variant in dict.fromkeys([least, most])]
        sentences.append(
            f"The excess of images halfway on {WAYS[way]}, their bits/dim minus the mean of the two test images at the "
            f"ends, is {' to '.join(ends)}."
        )
        sentences += [against_base(variant, rows, f"excess on {WAYS[way]}", WORDS) for variant in rows.bases]
    comparisons = next(iter(middles.values())).comparisons
    return [*sentences, on_errors(analysed, f"{pairs} pairs of test images", comparisons)]


def _table(
    present: Analysed[Interpolation],
    bases: Mapping[str, str | None],
    middles: Mapping[str, PairedRows],
    pairs: int,
) -> Table:
    ends = paired_rows(present, bases, lambda found: found.spherical.ends)
    headings = ["model", "ends"]
    rows = {variant: [variant, mean_text(ends.mean(variant))] for variant in ends.rows}
    for way, middle in middles.items():
        headings += [f"excess, {WAYS[way]}", "against its base"]
        compared = middle.over_bases()
        for variant, row in rows.items():
            row += [mean_text(middle.mean(variant)), mean_text(compared[variant]) if variant in compared else ABSENT]
    caption = (
        f"bits/dim at the ends of {pairs} paths, their excess halfway, and the difference of that to the base's, "
        "paired over paths; ± one standard error."
    )
    return Table(headings, list(rows.values()), caption)


def _curve(present: Analysed[Interpolation], way: str, looks: Looks) -> Figure:
    t = next(iter(present.values()))[0].found.path(way).t

    def excess(found: Interpolation, step: int) -> np.ndarray:
        return found.path(way).excess[:, step]

    def draw(axes: Axes) -> None:
        by_step = [paired_rows(present, {}, partial(excess, step=step)) for step in range(len(t))]
        for variant in present:
            found = [rows.mean(variant) for rows in by_step]
            means, errors = [one.mean for one in found], [one.se for one in found]
            axes.errorbar(t, means, errors, ms=4, lw=1.2, label=variant, **looks[variant].marked_line)
        axes.set(xlabel="place on the path", ylabel="excess bits/dim")

    return draw_figure(
        f"interpolation-{way}",
        f"excess of bits/dim along {WAYS[way]} between test images in latent space, by model",
        f"{WAYS[way]}: mean over pairs and trainings ± one standard error",
        3.4,
        draw,
    )


section = AnalysisPart(Interpolation, section_of)
