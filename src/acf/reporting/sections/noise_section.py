"""The report's section on additive white Gaussian noise."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Self

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from acf.reporting.findings_file import PairFinding
from acf.reporting.page_parts import Analysed, AnalysisPart, Figure, Section, Table
from acf.reporting.paired_rows import (
    PairedRows,
    against_base,
    mean_text,
    on_errors,
    paired_rows,
    require_alike,
)
from acf.reporting.schemas import NotNegative, Number, Stored
from acf.reporting.style import BASELINE_COLOUR, Looks, draw_figure
from acf.reporting.wording import with_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Hit = Annotated[int, Field(ge=0, le=1)]
PIXELS = "pixels, no model"
RISE = ("smaller", "larger", " bits/dim")
ACCURACY = ("lower", "higher", "")


class Neighbours(Stored):
    """Whether the nearest training images give each test image its class, by sigma and image."""

    train_images: PositiveInt
    latent: list[list[Hit]]
    pixels: list[list[Hit]]


class Noise(Stored):
    """What the analysis found of one model."""

    sigmas: list[NotNegative] = Field(min_length=2)
    bits_per_dim: list[list[Number]]
    neighbours: Neighbours | None

    @model_validator(mode="after")
    def _of_one_form(self) -> Self:
        tables: list[list[list[int]] | list[list[float]]] = [self.bits_per_dim]
        if self.neighbours is not None:
            tables += [self.neighbours.latent, self.neighbours.pixels]
        if any(len(table) != len(self.sigmas) for table in tables):
            raise ValueError("there is not one list of images for each sigma")
        if len({len(values) for table in tables for values in table}) > 1 or self.images < 2:
            raise ValueError("the lists are of different or of too few images")
        return self

    @property
    def images(self) -> int:
        """Number of test images."""
        return len(self.bits_per_dim[0])

    def rise(self, i: int) -> np.ndarray:
        """Return bits/dim at the i-th sigma minus those without noise, (N,)."""
        return np.asarray(self.bits_per_dim[i]) - np.asarray(self.bits_per_dim[0])

    def hits(self, space: str, i: int) -> np.ndarray:
        """Return for each image whether it is given its class at the i-th sigma, (N,)."""
        return np.asarray(getattr(self.neighbours, space)[i], dtype=float)


def section_of(analysed: Analysed[Noise], bases: Mapping[str, str | None], looks: Looks) -> Section:
    """Return how bits/dim rise with noise, and how often nearest neighbours still tell the class."""
    found = [model.found for models in analysed.values() for model in models]
    if not found:
        return Section("noise", "Noise")
    require_alike("noise", analysed, lambda one: (one.images, one.neighbours is None, *one.sigmas))
    first = found[0]
    later = range(1, len(first.sigmas))
    rises = [paired_rows(analysed, bases, partial(Noise.rise, i=i), len(later)) for i in later]
    sentences = _on_rises(rises, first)
    tables, figures = [_rise_table(analysed, bases, rises, first)], [_rise_figure(looks, rises, first)]
    if rises[0].bases:
        tables.append(_difference_table(rises, first))
    if first.neighbours is not None:
        spaces = {space: _hits(analysed, bases, space, first) for space in ("latent", "pixels")}
        sentences += _on_neighbours(spaces["latent"], first)
        tables.append(_accuracy_table(spaces, first))
        figures.append(_accuracy_figure(looks, spaces, first))
    sentences.append(on_errors(analysed, f"{first.images} test images", rises[0].comparisons))
    pairs = _pairs(rises, analysed, bases, first)
    return Section("noise", "Noise", sentences, tables, figures, _notes(analysed, first), pairs)


def _pairs(
    rises: list[PairedRows], analysed: Analysed[Noise], bases: Mapping[str, str | None], first: Noise
) -> list[PairFinding]:
    """Return each variant against its base, for other documents: rises, and the error rate of nearest neighbours."""
    items = f"{first.images} test images"
    pairs = [
        pair
        for sigma, rise in zip(first.sigmas[1:], rises, strict=True)
        for pair in rise.findings("noise", items, f"{sigma:g}")
    ]
    if first.neighbours is None:
        return pairs
    last = len(first.sigmas) - 1
    misses = paired_rows(analysed, bases, lambda found: 1 - found.hits("latent", last), last)
    return [*pairs, *misses.findings("noise-neighbours", items, f"{first.sigmas[-1]:g}")]


def _hits(analysed: Analysed[Noise], bases: Mapping[str, str | None], space: str, first: Noise) -> list[PairedRows]:
    """Return for each sigma which images are given their class in a space."""
    sigmas = len(first.sigmas)
    return [paired_rows(analysed, bases, partial(Noise.hits, space=space, i=i), sigmas - 1) for i in range(sigmas)]


def _on_rises(rises: list[PairedRows], first: Noise) -> list[str]:
    """Return what the claim asks: which model's bits/dim rise least, and whether attention makes them rise less."""
    rows, sigma = rises[-1], first.sigmas[-1]
    order = sorted(rows.rows, key=lambda variant: rows.mean(variant).mean)
    least = order[0]
    sentences = [
        f"Noise of standard deviation {sigma:g} raises bits/dim least under {least}, by {mean_text(rows.mean(least))}"
        + (f", and most under {order[-1]}, by {mean_text(rows.mean(order[-1]))}." if len(order) > 1 else ".")
    ]
    if len(order) > 1 and order[1] != rows.bases.get(least):
        ahead = rows.between(order[1], least)
        low, _ = ahead.interval(max(rows.comparisons, len(order) - 1))
        sure = "" if low > 0 else ", which is within the error"
        sentences.append(f"{least} is ahead of {order[1]} by {mean_text(ahead)} bits/dim{sure}.")
    sentences += [against_base(variant, rows, f"rise at {sigma:g}", RISE) for variant in rows.bases]
    if rows.bases:
        ends = [found.interval(rows.comparisons) for found in rows.over_bases().values()]
        less, more = sum(high < 0 for _, high in ends), sum(low > 0 for low, _ in ends)
        sentences.append(
            "The claim is that attention makes a flow more resilient to additive white Gaussian noise: at "
            f"{sigma:g}, bits/dim rise less than under the base in {less} and more in {more} of {len(ends)} variants."
        )
    return sentences


def _on_neighbours(latent: list[PairedRows], first: Noise) -> list[str]:
    clean, noisy = latent[0], latent[-1]
    best = max(noisy.rows, key=lambda variant: noisy.mean(variant).mean)
    return [
        f"Nearest neighbours in latent space tell the class of a test image most often under {best} at "
        f"{first.sigmas[-1]:g}: with accuracy {mean_text(noisy.mean(best))}, and {mean_text(clean.mean(best))} without "
        "noise.",
        *(against_base(variant, noisy, f"accuracy at {first.sigmas[-1]:g}", ACCURACY) for variant in noisy.bases),
    ]


def _notes(analysed: Analysed[Noise], first: Noise) -> list[str]:
    notes = [
        "A noisy image is r((k + u) / levels + sigma e): k its grey levels, u uniform in [0, 1), e standard normal, r "
        "reflection at 0 and at 1, after which it lies in the range of pixels and its density is compared with that of "
        "other images. u and e are the same for all sigma, models and seeds. Bits/dim that rise less do not alone make "
        "a better model: under a uniform density they do not rise at all."
    ]
    if first.neighbours is not None:
        settings = next(model.settings for models in analysed.values() for model in models)
        voters = settings.get("neighbours", 1)
        by = "the nearest" if voters == 1 else f"most of the {voters} nearest"
        notes.append(
            f"Accuracy is the share of test images whose class is that of {by} of {first.neighbours.train_images:,} "
            "training images, by Euclidean distance between latent vectors or, without a model, between the images. "
            "Training images have no noise."
        )
    return notes


def _rise_table(
    analysed: Analysed[Noise], bases: Mapping[str, str | None], rises: list[PairedRows], first: Noise
) -> Table:
    clean = paired_rows(analysed, bases, lambda found: np.asarray(found.bits_per_dim[0]))
    headings = ["model", "no noise", *(f"+ at {sigma:g}" for sigma in first.sigmas[1:])]
    rows = [
        [variant, mean_text(clean.mean(variant)), *(mean_text(rise.mean(variant)) for rise in rises)]
        for variant in clean.rows
    ]
    return Table(
        headings, rows, "bits/dim without noise, and by how much noise of each sigma raises them; ± one standard error"
    )


def _difference_table(rises: list[PairedRows], first: Noise) -> Table:
    headings = ["model", "base", *(f"at {sigma:g}" for sigma in first.sigmas[1:])]
    rows = [
        [variant, base, *(mean_text(rise.between(variant, base)) for rise in rises)]
        for variant, base in rises[0].bases.items()
    ]
    return Table(headings, rows, "rise of bits/dim minus that of the base, paired over images; ± one standard error", 2)


def _accuracy_table(spaces: Mapping[str, list[PairedRows]], first: Noise) -> Table:
    variants = list(spaces["latent"][0].rows)
    rows = [[variant, *(mean_text(rows.mean(variant)) for rows in spaces["latent"])] for variant in variants]
    rows.append([PIXELS, *(_of_pixels(rows) for rows in spaces["pixels"])])
    headings = ["model", *(f"at {sigma:g}" for sigma in first.sigmas)]
    return Table(headings, rows, "accuracy of nearest neighbours in latent space, by sigma, ± one standard error")


def _of_pixels(rows: PairedRows) -> str:
    """Return the accuracy in pixels, which no model and no seed has a part in."""
    hits = next(iter(rows.rows.values())).bits[0]
    return with_error(float(hits.mean()), float(hits.std(ddof=1)) / len(hits) ** 0.5)


def _rise_figure(looks: Looks, rises: list[PairedRows], first: Noise) -> Figure:
    def draw(axes: Axes) -> None:
        for variant in rises[0].rows:
            found, look = [rows.mean(variant) for rows in rises], looks[variant]
            means, errors = [0.0, *(one.mean for one in found)], [0.0, *(one.se for one in found)]
            axes.errorbar(first.sigmas, means, errors, ms=4, lw=1.2, label=variant, **look.marked_line)
        axes.set(xlabel="standard deviation of the noise", ylabel="rise in bits/dim")

    alt = "rise of bits/dim with the standard deviation of Gaussian noise on test images, by model"
    return draw_figure("noise-likelihood", alt, "rise of bits/dim with noise, ± one standard error", 3.4, draw)


def _accuracy_figure(looks: Looks, spaces: Mapping[str, list[PairedRows]], first: Noise) -> Figure:
    def draw(axes: Axes) -> None:
        for variant in spaces["latent"][0].rows:
            found, look = [rows.mean(variant) for rows in spaces["latent"]], looks[variant]
            means, errors = [one.mean for one in found], [one.se for one in found]
            axes.errorbar(first.sigmas, means, errors, ms=4, lw=1.2, label=variant, **look.marked_line)
        pixels = [float(next(iter(rows.rows.values())).bits[0].mean()) for rows in spaces["pixels"]]
        axes.plot(first.sigmas, pixels, "--", color=BASELINE_COLOUR, label=PIXELS)
        axes.set(xlabel="standard deviation of the noise", ylabel="accuracy of nearest neighbours")

    alt = "accuracy of nearest neighbours in latent space against the standard deviation of Gaussian noise, by model"
    caption = "class told by nearest neighbours in latent space, ± one standard error"
    return draw_figure("noise-neighbours", alt, caption, 3.4, draw)


section = AnalysisPart(Noise, section_of)
