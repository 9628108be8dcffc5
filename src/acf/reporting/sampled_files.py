"""The form of what the stage `sample` measures."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, PositiveInt, model_validator

from acf.reporting.schemas import Count, Name, NotNegative, OfModel, Stored


class Spread(Stored):
    """Of a set of images: mean of pixel values in [0, 1], and mean over pixels of their deviation over images."""

    mean: NotNegative
    spread: NotNegative | None


class AtTemperature(Spread):
    """Samples at one temperature."""

    temperature: NotNegative


class Distances(Stored):
    """Of images, Euclidean distances to their nearest training images, and the places of those."""

    distances: list[NotNegative] = Field(min_length=1)
    places: list[Count]


class Nearest(Stored):
    """What is nearest to samples and to test images."""

    training_images: PositiveInt
    samples: Distances
    test: Distances


class Reconstructions(Stored):
    """Per test image x: how far f^-1(f(x)) is from it, and the largest proven error of any block's inverse."""

    largest: list[NotNegative] = Field(min_length=1)
    mean: list[NotNegative]
    changed: list[Count]
    block_bound: list[NotNegative]

    @model_validator(mode="after")
    def _one_each(self) -> Self:
        if len({len(values) for values in (self.largest, self.mean, self.changed, self.block_bound)}) > 1:
            raise ValueError("the lists are of different lengths")
        return self


class SamplesFile(OfModel):
    """`samples/<experiment>/<variant>/seed<k>/samples.json` (docs/architecture.md)."""

    settings: dict[str, Any]
    temperatures: list[AtTemperature] = Field(min_length=1)
    test: Spread
    nearest: Nearest
    reconstructions: Reconstructions
    seconds: NotNegative
    recipe: Name
