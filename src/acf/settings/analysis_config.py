"""Settings of the analyses: what is looked at in a trained model beside its bits/dim."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from acf.settings.section import Positive, Section, Several

NotNegative = Annotated[float, Field(ge=0, le=1e3)]


class AnalysisSection(Section):
    """Settings of one analysis, and what the engines have to know of it."""

    every_seed: ClassVar[bool] = False
    """Whether the models of all seeds are analysed, or of each variant that of the first."""
    has_picture: ClassVar[bool] = False
    """Whether it writes a picture beside its numbers."""
    reads_labels: ClassVar[bool] = False
    """Whether it reads the labels of the experiment's data set."""

    @classmethod
    def output_names(cls, name: str) -> list[str]:
        """Return the names of the files that the analysis `name` writes."""
        return [f"{name}.json", f"{name}.png"] if cls.has_picture else [f"{name}.json"]

    @property
    def images_at_once(self) -> int | None:
        """Number of images that pass through the flow together, at most; None for evaluation's batches."""
        return None

    @property
    def other_datasets(self) -> tuple[str, ...]:
        """Data sets that it reads beside the experiment's own."""
        return ()


class InterpolationConfig(AnalysisSection):
    """Paths between pairs of test images, straight and along great circles in latent space."""

    has_picture: ClassVar[bool] = True

    pairs: Several = Field(
        default=32,
        description="Number of pairs of test images whose paths are measured: images 1 and 2, 3 and 4, and so on, as "
        "far as there are any. This project's choice.",
    )
    pictured_pairs: Positive = Field(
        default=4, description="Number of pairs that the picture shows, the first ones. This project's choice."
    )
    steps: Several = Field(
        default=9, le=1000, description="Number of points on a path, both images included. This project's choice."
    )


class NoiseConfig(AnalysisSection):
    """Additive white Gaussian noise: bits/dim of noisy test images, and whose neighbours they are."""

    every_seed: ClassVar[bool] = True
    reads_labels: ClassVar[bool] = True

    sigmas: list[NotNegative] = Field(
        default=[0.0, 0.02, 0.05, 0.1, 0.2],
        min_length=2,
        max_length=100,
        description="Standard deviations of the noise, 0 and others above it in rising order; pixel values lie in "
        "[0, 1). This project's choice.",
    )
    images: Several = Field(
        default=1000, description="Number of test images, the first of the test set. This project's choice."
    )
    train_images: Positive = Field(
        default=10000,
        description="Number of training images, the first ones, among which the neighbours of a noisy test image are "
        "sought, where the data set has labels. This project's choice.",
    )
    neighbours: Positive = Field(
        default=1,
        le=100,
        description="Number of nearest training images that vote on the class of a test image; in a tie the class of "
        "the nearest wins. This project's choice.",
    )

    @field_validator("sigmas")
    @classmethod
    def _rising_from_zero(cls, sigmas: list[float]) -> list[float]:
        if sigmas[0] != 0 or any(one >= other for one, other in pairwise(sigmas)):
            raise ValueError("has to begin with 0 and to rise")
        return sigmas


class AnalysesConfig(Section):
    """What is looked at in trained models, one stage each; its fields are the analyses there are."""

    interpolation: InterpolationConfig = Field(
        default=InterpolationConfig(), description="Images between test images, and their likelihood."
    )
    noise: NoiseConfig = Field(
        default=NoiseConfig(), description="How a model takes additive white Gaussian noise on test images."
    )
