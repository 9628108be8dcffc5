"""The report's sections on samples, temperatures, nearest training images and reconstructions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Generic, TypeVar

from acf.reporting.page_parts import Figure, Section, Table
from acf.reporting.sampled_files import SamplesFile
from acf.reporting.schemas import OfModel
from acf.reporting.wording import ABSENT, count, decimal, scientific
from acf.settings.params import Run

THRESHOLD = 3
"""Standard errors from which samples count as closer to training images than test images are."""


FoundForm = TypeVar("FoundForm", bound=OfModel)


@dataclass(frozen=True)
class SampledModel(Generic[FoundForm]):
    """What the stage `sample` wrote of one model.

    Attributes:
        run: the model.
        found: the numbers.
        pictures: contents of PNG files, enlarged, by their names without ending; may be empty.
    """

    run: Run
    found: FoundForm
    pictures: Mapping[str, bytes]


Models = Mapping[str, Sequence[SampledModel[SamplesFile]]]
"""Per variant, in the order of params.yaml, its models by seed; empty where there is none."""


def sample_sections(models: Models) -> list[Section]:
    """Return the four sections; none if there are no models."""
    present = {variant: found for variant, found in models.items() if found}
    if not present:
        return []
    return [_samples(present), _temperatures(present), _nearest(present), _reconstructions(present)]


def _figures(models: Models, name: str, alt: str) -> list[Figure]:
    """Return the picture `name` of each variant's first model that has one."""
    pictured = {variant: next((m for m in found if name in m.pictures), None) for variant, found in models.items()}
    return [
        Figure(f"{name}-{variant}", f"{alt} {variant}, seed {model.run.seed}", variant, model.pictures[name])
        for variant, model in pictured.items()
        if model is not None
    ]


def _first(models: Models) -> SampledModel[SamplesFile]:
    return next(iter(models.values()))[0]


def _samples(models: Models) -> Section:
    found = _first(models).found
    temperature = found.temperatures[0].temperature
    return Section(
        "samples",
        "Samples",
        figures=_figures(models, "samples", "samples of"),
        notes=[
            f"{len(found.nearest.samples.distances)} samples at temperature {temperature:g}, not selected, of the "
            "first training seed; the same place is the same latent noise for every model."
        ],
    )


def _temperatures(models: Models) -> Section:
    first = _first(models).found
    rows, sentences = [], []
    for variant, found in models.items():
        spreads = [_mean([m.found.temperatures[i].spread for m in found]) for i in range(len(first.temperatures))]
        rows.append([variant, *map(_decimal, spreads)])
        if spreads[0] is not None and spreads[-1] is not None and len(spreads) > 1:
            sentences.append(f"{variant} from {spreads[0]:.3f} to {spreads[-1]:.3f}")
    rows.append(["test images", *[_decimal(first.test.spread)] * len(first.temperatures)])
    said = []
    if sentences:
        high, low = (first.temperatures[i].temperature for i in (0, -1))
        said.append(
            f"Between temperature {high:g} and {low:g} the spread of samples goes for {', '.join(sentences)}; "
            f"that of as many test images is {_decimal(first.test.spread)}."
        )
    return Section(
        "temperatures",
        "Samples at several temperatures",
        said,
        [Table(["spread at temperature", *(f"{row.temperature:g}" for row in first.temperatures)], rows)],
        _figures(models, "temperatures", "samples at falling temperatures of"),
        [
            "Rows from above: the temperatures of the table from left to right; a column is one latent vector, scaled, "
            "and the same for every model.",
            "The spread is the standard deviation of a pixel's value, black 0 and white 1, over images; mean over "
            "pixels and training seeds.",
        ],
    )


def _nearest(models: Models) -> Section:
    first = _first(models).found
    test = first.nearest.test.distances
    closer = {v: fmean(share_closer(m.found.nearest.samples.distances, test) for m in ms) for v, ms in models.items()}
    error = share_error(len(first.nearest.samples.distances), len(test))
    rows = [["test images", f"{median(test):.3f}", f"{min(test):.3f}", count(test.count(0)), ABSENT]]
    for variant, found in models.items():
        distances = [model.found.nearest.samples.distances for model in found]
        copies = sum(values.count(0) for values in distances)
        smallest = min(map(min, distances))
        middle = fmean(map(median, distances))
        rows.append([variant, f"{middle:.3f}", f"{smallest:.3f}", count(copies), f"{closer[variant]:.2f}"])
    suspects = [variant for variant, share in closer.items() if share - 0.5 > THRESHOLD * error]
    if suspects:
        sentence = (
            f"Samples of {', '.join(suspects)} lie closer to training images than test images do, by more than "
            f"{THRESHOLD} standard errors: these flows may copy training images."
        )
    else:
        most = max(closer, key=lambda variant: closer[variant])
        sentence = (
            "No flow's samples lie closer to training images than test images do by more than "
            f"{THRESHOLD} standard errors, so nothing says that training images are copied: of a sample and a test "
            f"image the sample is the closer one in at most {closer[most]:.0%} of pairs ({most}; 50% ± {error:.0%} "
            "where both have one law)."
        )
    return Section(
        "nearest",
        "Nearest training images",
        [sentence],
        [Table(["images of", "median distance", "smallest", "copies", "closer than a test image"], rows)],
        _figures(models, "nearest", "above samples, below their nearest training images, of"),
        [
            f"Above: samples; below: of {count(first.nearest.training_images)} training images (those that validate "
            "among them) the nearest by Euclidean distance of pixel values, black 0 and white 1; exact search.",
            f"Compared are {count(len(first.nearest.samples.distances))} samples per model with {count(len(test))} "
            "test images. Copies are at distance 0. A blurred image is near to many others, so a small distance alone "
            "does not show a copy.",
        ],
    )


def _reconstructions(models: Models) -> Section:
    errors = {variant: [model.found.reconstructions for model in found] for variant, found in models.items()}
    largest = {variant: max(max(e.largest) for e in found) for variant, found in errors.items()}
    changed = {variant: sum(sum(e.changed) for e in found) for variant, found in errors.items()}
    worst = max(largest, key=lambda variant: largest[variant])
    total = sum(changed.values())
    what = "no value of any image changes its grey level" if total == 0 else f"{count(total)} values change grey level"
    rows = [
        [
            variant,
            scientific(largest[variant]),
            scientific(fmean(fmean(e.mean) for e in found)),
            count(changed[variant]),
            scientific(max(max(e.block_bound) for e in found)),
        ]
        for variant, found in errors.items()
    ]
    return Section(
        "reconstructions",
        "Reconstructions",
        [f"The largest |x − f⁻¹(f(x))| of any flow is {scientific(largest[worst])} ({worst}); {what}."],
        [Table(["model", "largest error", "mean error", "changed levels", "proven error of a block"], rows)],
        _figures(models, "reconstructions", "above test images, below their reconstructions, by"),
        [
            f"Above: the first {len(_first(models).found.reconstructions.largest)} test images; below: f⁻¹(f(x)). "
            "Errors are those of pixel values, black 0 and white 1, over all training seeds.",
            "The proven error bounds the Euclidean distance of a block's solution from the exact one, for the input "
            "that the block received.",
        ],
    )


def share_closer(samples: Sequence[float], test: Sequence[float]) -> float:
    """Return the share of pairs of a sample and a test image in which the sample's distance is less; ties are half."""
    won = sum((s < t) + 0.5 * (s == t) for s in samples for t in test)
    return won / (len(samples) * len(test))


def share_error(samples: int, test: int) -> float:
    """Return the standard deviation of `share_closer` where all distances are independent and of one law.

    sqrt((n + m + 1) / (12 n m)), that of the statistic of Mann and Whitney divided by n m.
    """
    return math.sqrt((samples + test + 1) / (12 * samples * test))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _decimal(value: float | None) -> str:
    return ABSENT if value is None else decimal(value)
