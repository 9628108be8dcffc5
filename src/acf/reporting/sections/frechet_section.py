"""The report's section on Fréchet distances of samples to test images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Self

from pydantic import Field, PositiveInt, model_validator

from acf.reporting.findings_file import PairFinding
from acf.reporting.page_parts import Analysed, AnalysedModel, AnalysisPart, Section, Table
from acf.reporting.schemas import NotNegative, Number, Stored
from acf.reporting.style import Looks
from acf.reporting.wording import ABSENT, NOT_AVAILABLE, count, with_error

THRESHOLD = 3
"""Differences of more standard errors than this count as real."""


class Frechet(Stored):
    """What the analysis found of one model."""

    distance: NotNegative
    distance_se: NotNegative
    floor: NotNegative
    floor_se: NotNegative
    bias: NotNegative
    samples: PositiveInt
    train_images: PositiveInt
    test_images: PositiveInt
    features: PositiveInt
    fitted_images: PositiveInt
    explained: float = Field(ge=0, le=1 + 1e-9)
    fid: Number | None
    fid_reason: str | None

    @model_validator(mode="after")
    def _a_number_or_a_reason(self) -> Self:
        if (self.fid is None) != bool(self.fid_reason):
            raise ValueError("there is either an FID or a reason why there is none")
        return self


Model = AnalysedModel[Frechet]


def section_of(analysed: Analysed[Frechet], bases: Mapping[str, str | None], looks: Looks) -> Section:
    """Return the table of distances, and sentences that compare them with the floor and with the bases."""
    models = {variant: found for variant, found in analysed.items() if found}
    if not models:
        return Section("frechet", "Fréchet distance")
    first = next(iter(models.values()))[0].found
    distances = {variant: over_seeds(found) for variant, found in models.items()}
    compared = {v: b for v, b in bases.items() if b is not None and {v, b} <= distances.keys()}
    sentences = [
        _against_floor(distances, first),
        *(_against_base(variant, base, distances[variant], distances[base]) for variant, base in compared.items()),
        *_fid(models),
    ]
    return Section(
        "frechet",
        f"Fréchet distance on {first.features} PCA features",
        sentences,
        [_table(models, distances, first)],
        notes=_notes(first),
        pairs=[_pair(variant, base, models, distances) for variant, base in compared.items()],
    )


def over_seeds(models: Sequence[Model]) -> tuple[float, float]:
    """Return the mean distance over seeds, and its standard error.

    That of one model is by bootstrap over images. With several, it is the larger one of the deviation between seeds
    divided by the root of their number, and of the bootstrap's mean, as all models see the same test images.
    """
    mean = fmean(model.found.distance for model in models)
    images = fmean(model.found.distance_se for model in models)
    if len(models) == 1:
        return mean, images
    between = stdev(model.found.distance for model in models) / math.sqrt(len(models))
    return mean, max(between, images)


def _pair(
    variant: str, base: str, models: Mapping[str, Sequence[Model]], distances: Mapping[str, tuple[float, float]]
) -> PairFinding:
    """Return a variant against its base, for other documents; samples of two models have nothing to be paired by."""
    (value, value_se), (of_base, of_base_se) = distances[variant], distances[base]
    gain, error = of_base - value, math.hypot(value_se, of_base_se)
    return PairFinding(
        quantity="frechet",
        at="",
        variant=variant,
        base=base,
        value=value,
        value_se=value_se,
        of_base=of_base,
        of_base_se=of_base_se,
        gain=gain,
        gain_se=error,
        low=gain - THRESHOLD * error,
        high=gain + THRESHOLD * error,
        over=f"{count(models[variant][0].found.samples)} samples",
        seeds=len(models[variant]),
        base_seeds=len(models[base]),
    )


def _against_floor(distances: Mapping[str, tuple[float, float]], first: Frechet) -> str:
    floor = with_error(first.floor, first.floor_se)
    best = min(distances, key=lambda variant: distances[variant][0])
    value, error = distances[best]
    sentence = (
        f"The samples of {best} are nearest to the test images: {with_error(value, error)}, where as many training "
        f"images are at {floor}"
    )
    if value - first.floor > THRESHOLD * math.hypot(error, first.floor_se):
        ratio = f", {value / first.floor:.1f} times as near" if first.floor > 0 else ""
        return f"{sentence}{ratio}."
    return f"{sentence}; the two are not apart by more than {THRESHOLD} standard errors."


def _against_base(variant: str, base: str, own: tuple[float, float], other: tuple[float, float]) -> str:
    difference, error = own[0] - other[0], math.hypot(own[1], other[1])
    said = with_error(abs(difference), error)
    if abs(difference) <= THRESHOLD * error:
        return f"{variant} and its base {base} are not apart by more than {THRESHOLD} standard errors ({said})."
    return f"The samples of {variant} are {'nearer' if difference < 0 else 'farther'} by {said} than those of {base}."


def _fid(models: Mapping[str, Sequence[Model]]) -> list[str]:
    """Return one sentence for each reason why there is no FID."""
    reasons: dict[str, list[str]] = {}
    for variant, found in models.items():
        for model in found:
            if model.found.fid_reason and variant not in reasons.setdefault(model.found.fid_reason, []):
                reasons[model.found.fid_reason].append(variant)
    everyone = list(models)
    return [
        f"FID is not available{'' if named == everyone else f' of {chr(44).join(named)}'}: {reason}."
        for reason, named in reasons.items()
    ]


def _table(
    models: Mapping[str, Sequence[Model]], distances: Mapping[str, tuple[float, float]], first: Frechet
) -> Table:
    several = max(map(len, models.values())) > 1
    rows = [["training images (floor)", with_error(first.floor, first.floor_se), *[ABSENT] * several, ABSENT]]
    for variant, found in models.items():
        values = [model.found.distance for model in found]
        spread = f"{min(values):.3g} to {max(values):.3g}" if len(values) > 1 else ABSENT
        fids = [model.found.fid for model in found if model.found.fid is not None]
        fid = f"{fmean(fids):.1f}" if fids else NOT_AVAILABLE
        rows.append([variant, with_error(*distances[variant]), *[spread] * several, fid])
    return Table(["model", "Fréchet distance to test images", *["over seeds"] * several, "FID"], rows)


def _notes(first: Frechet) -> list[str]:
    return [
        f"Distance |m₁ − m₂|² + tr(S₁ + S₂ − 2 (S₁S₂)^½) of the means and covariances of {first.features} principal "
        f"components of {count(first.fitted_images)} training images ({first.explained:.0%} of their variance; pixel "
        f"values with black 0 and white 1), in float64. It is no FID: no trained network sees the images.",
        f"{count(first.samples)} samples against {count(first.test_images)} test images; the floor is "
        f"{count(first.train_images)} training images against the same test images. Finite sets make distances too "
        f"large: two sets of these sizes from one Gaussian are on average at {first.bias:.3g}.",
        "± is one standard error, by bootstrap over images; over several seeds, the deviation between them if that is "
        "larger.",
        "FID is against the test images, too, with as many samples. Published figures use 10,000 or 50,000 samples, "
        "and not all say which images they are against; a figure of fewer samples is larger.",
    ]


section = AnalysisPart(Frechet, section_of)
