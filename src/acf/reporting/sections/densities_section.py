"""The report's section on likelihoods of training, test and other images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from acf.reporting.page_parts import Analysed, AnalysisPart, Figure, Section, Table
from acf.reporting.schemas import NotNegative, Number, Stored
from acf.reporting.style import Looks, draw_figure
from acf.reporting.wording import ABSENT, count, with_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRAIN, TEST = "train", "test"
BINS = 40
WIDE = 4
"""Ratio of the most to the fewest bits/dim above which their axis is logarithmic."""


class Likelihoods(Stored):
    """Bits/dim of the images of one set."""

    mean: Number
    se: NotNegative
    bits_per_dim: list[Number] = Field(min_length=2)


class Gap(Stored):
    """Mean bits/dim of test images less that of training images."""

    value: Number
    se: NotNegative


class Area(Stored):
    """Area under the receiver operating characteristic, with DeLong's standard error."""

    auroc: Annotated[float, Field(ge=0, le=1)]
    se: NotNegative


class Densities(Stored):
    """What the analysis found of one model."""

    sets: dict[str, Likelihoods]
    gap: Gap
    told_apart: dict[str, Area]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if absent := {TRAIN, TEST, *self.told_apart} - set(self.sets):
            raise ValueError(f"no likelihoods of {', '.join(sorted(absent))}")
        return self


Models = Mapping[str, Densities]


def section_of(analysed: Analysed[Densities], bases: Mapping[str, str | None], looks: Looks) -> Section:
    """Return the gap between training and test images, how well others are told apart, and histograms."""
    models = {variant: models[0].found for variant, models in analysed.items() if models}
    if not models:
        return Section("densities", "Likelihood of other images")
    figures = [_histogram(variant, found, looks[variant].colour) for variant, found in models.items()]
    sentences = [*_gaps(models, bases), *_told_apart(models)]
    return Section("densities", "Likelihood of other images", sentences, [_table(models)], figures, _notes(models))


def _gaps(models: Models, bases: Mapping[str, str | None]) -> list[str]:
    """Say how far each variant prefers its training images, and how that compares with its base."""
    sentences = []
    for variant, found in models.items():
        gap, clear = found.gap, abs(found.gap.value) > 2 * found.gap.se
        means = "" if clear else ", within two standard errors of none"
        compared = ""
        if (base := bases.get(variant)) is not None and base in models:
            compared = f"; that is {with_error(*_paired(found, models[base]))} more than of its base {base}"
        sentences.append(
            f"{variant} gives test images {with_error(gap.value, gap.se)} bits/dim more than training images{means}"
            f"{compared}."
        )
    return sentences


def _paired(found: Densities, base: Densities) -> tuple[float, float]:
    """Return how much larger a gap is than that of the base, and its standard error, paired over images.

    Both models have seen the same images with the same noise.
    """
    means, errors = {}, {}
    for name in (TRAIN, TEST):
        values = (it.sets[name].bits_per_dim for it in (found, base))
        differences = [own - other for own, other in zip(*values, strict=True)]
        means[name], errors[name] = fmean(differences), stdev(differences) / math.sqrt(len(differences))
    return means[TEST] - means[TRAIN], math.hypot(errors[TRAIN], errors[TEST])


def _told_apart(models: Models) -> list[str]:
    names = dict.fromkeys(name for found in models.values() for name in found.told_apart)
    sentences = []
    for name in names:
        areas = {variant: found.told_apart[name] for variant, found in models.items() if name in found.told_apart}
        values = [area.auroc for area in areas.values()]
        low, high = f"{min(values):.4f}", f"{max(values):.4f}"
        shown = f"{low} for every variant" if low == high else f"{low} to {high} over the variants"
        likelier = [variant for variant, area in areas.items() if area.auroc < 0.5 - 2 * area.se]
        also = f"; under {', '.join(likelier)} they are likelier than test images" if likelier else ""
        sentences.append(f"Likelihood tells test images from {name} with an AUROC of {shown}{also}.")
    return sentences


def _table(models: Models) -> Table:
    others = list(dict.fromkeys(name for found in models.values() for name in found.told_apart))
    sets = [TRAIN, TEST, *others]
    rows = [
        [
            variant,
            *(_mean(found.sets.get(name)) for name in sets),
            with_error(found.gap.value, found.gap.se),
            *(_area(found.told_apart.get(name)) for name in others),
        ]
        for variant, found in models.items()
    ]
    headings = ["model", *sets, "test − train", *(f"AUROC, {name}" for name in others)]
    return Table(headings, rows, "Mean bits/dim of each set of images, and how well likelihood tells them apart.")


def _mean(likelihoods: Likelihoods | None) -> str:
    return ABSENT if likelihoods is None else with_error(likelihoods.mean, likelihoods.se)


def _area(area: Area | None) -> str:
    return ABSENT if area is None else with_error(area.auroc, area.se)


def _histogram(variant: str, found: Densities, colour: str) -> Figure:
    def draw(axes: Axes) -> None:
        from matplotlib.ticker import LogLocator

        values = [value for likelihoods in found.sets.values() for value in likelihoods.bits_per_dim]
        low, high = min(values), max(values)
        edges = [low + (high - low or 1) * i / BINS for i in range(BINS + 1)]
        if low > 0 and high > WIDE * low:
            edges = [low * (high / low) ** (i / BINS) for i in range(BINS + 1)]
            edges[-1] = high
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("")
        styles = ["-", "--", ":", "-."]
        for number, (name, likelihoods) in enumerate(found.sets.items()):
            shares = [1 / len(likelihoods.bits_per_dim)] * len(likelihoods.bits_per_dim)
            filled = name == TEST
            axes.hist(
                likelihoods.bits_per_dim,
                edges,
                weights=shares,
                histtype="stepfilled" if filled else "step",
                color=colour if filled or name == TRAIN else "0.35",
                alpha=0.35 if filled else 1,
                ls="-" if filled else styles[(number - (number > 0)) % len(styles)],
                label=name,
            )
        axes.set(xlabel="bits/dim, fewer are likelier", ylabel="share of the images")

    return draw_figure(
        f"densities-{variant}",
        f"histograms of bits/dim of training, test and other images under {variant}",
        variant,
        3.0,
        draw,
    )


def _notes(models: Models) -> list[str]:
    counts = {name: len(it.bits_per_dim) for found in models.values() for name, it in found.sets.items()}
    images = ", ".join(f"{name} {count(number)}" for name, number in counts.items())
    notes = [
        f"Images: {images}; first seed, one draw of the noise of dequantisation and of the estimator. Training images "
        "are images that were not held out for validation; standard errors are over images, and those of differences "
        "to the base are paired over images.",
        "AUROC: probability that a test image has fewer bits/dim than one of the other set; 0.5 where likelihood does "
        "not tell them apart. Its standard error is DeLong's, which is 0 where the sets do not overlap.",
    ]
    made = {
        "noise": "noise: independent uniform grey levels.",
        "shuffled": "shuffled: test images, the values of each in an order of its own.",
    }
    return [*notes, *(text for name, text in made.items() if name in counts)]


section = AnalysisPart(Densities, section_of)
