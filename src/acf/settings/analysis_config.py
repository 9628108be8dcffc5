"""Settings of the analyses: what is looked at in a trained model beside its bits/dim."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from acf.settings.section import Positive, Section, Several


class AnalysisSection(Section):
    """Settings of one analysis, and what the engines have to know of it."""

    every_seed: ClassVar[bool] = False
    """Whether the models of all seeds are analysed, or of each variant that of the first."""
    has_picture: ClassVar[bool] = False
    """Whether it writes a picture beside its numbers."""

    @classmethod
    def output_names(cls, name: str) -> list[str]:
        """Return the names of the files that the analysis `name` writes."""
        return [f"{name}.json", f"{name}.png"] if cls.has_picture else [f"{name}.json"]

    @property
    def images_at_once(self) -> int:
        """Number of images that pass through the flow together, at most."""
        raise NotImplementedError

    @property
    def other_datasets(self) -> tuple[str, ...]:
        """Data sets that it reads beside the experiment's own."""
        return ()


class InterpolationConfig(AnalysisSection):
    """Paths between pairs of test images, straight and along great circles in latent space."""

    has_picture: ClassVar[bool] = True

    pairs: Positive = Field(
        default=4, description="Number of pairs: test images 1 and 2, 3 and 4, and so on. This project's choice."
    )
    steps: Several = Field(
        default=9, description="Number of points on a path, both images included. This project's choice."
    )

    @property
    def images_at_once(self) -> int:
        """All points of all paths of one kind."""
        return self.pairs * self.steps


class AnalysesConfig(Section):
    """What is looked at in trained models, one stage each; its fields are the analyses there are."""

    interpolation: InterpolationConfig = Field(
        default=InterpolationConfig(), description="Images between test images, and their likelihood."
    )
