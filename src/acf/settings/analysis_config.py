"""Settings of the analyses: what is looked at in a trained model beside its bits/dim."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, field_validator
from typing_extensions import override

from acf.registry import DATASETS
from acf.settings.section import Natural, Positive, Section, Several, one_of

AT_ONCE = 64
"""Images that an analysis of many sends through the flow together."""
MADE = ("noise", "shuffled")
"""Sets of images that are made and not read."""

Place = Annotated[float, Field(ge=0, le=1)]


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


class AttentionMapsConfig(AnalysisSection):
    """Where attention looks: its weights over test images, their mean distance and entropy, by block and head."""

    images: Positive = Field(
        default=256,
        description="Number of test images, the first ones, over which distance and entropy are averaged. This "
        "project's choice.",
    )
    shown_images: Positive = Field(
        default=2,
        description="Number of test images, the first ones, whose weights are shown. This project's choice.",
    )
    shown_blocks: Positive = Field(
        default=4,
        description="Number of blocks with attention whose weights are shown, spread evenly over the flow. This "
        "project's choice.",
    )
    queries: tuple[Annotated[tuple[Place, Place], Field(strict=False)], ...] = Field(
        default=((0.5, 0.5), (0.0, 0.0), (0.5, 1.0)),
        strict=False,
        min_length=1,
        description="Positions whose weights are shown, as fractions of height (from above) and width (from the left). "
        "This project's choice.",
    )

    @property
    @override
    def images_at_once(self) -> int:
        return min(self.images, AT_ONCE)


class AuditConfig(AnalysisSection):
    """An attack on the proven bound of every block, and what attention does in it."""

    images: Several = Field(
        default=24,
        description="Number of test images, the first ones, at whose activations norms are measured and from which "
        "gradient ascent starts. This project's choice.",
    )
    steps: Positive = Field(
        default=10,
        description="Number of steps of each of the two gradient ascents in every block. This project's choice.",
    )
    seed: Natural = Field(default=0, description="Seed of dequantisation, starting points and choice of tokens.")

    @property
    @override
    def images_at_once(self) -> int:
        return min(self.images, AT_ONCE)


class DensitiesConfig(AnalysisSection):
    """Log-likelihoods of training, test and other images, and how well they tell these apart."""

    images: Several = Field(default=1000, description="Largest number of images of each set. This project's choice.")
    others: tuple[str, ...] = Field(
        default=("noise",),
        strict=False,
        description="Sets of other images: `noise` (independent uniform grey levels), `shuffled` (test images, the "
        "values of each in an order of its own), or data sets with images of the same size. arXiv 1810.09136 compares "
        "CIFAR-10 with SVHN, and Fashion-MNIST with MNIST; the choice of the others is this project's.",
    )

    @field_validator("others")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            one_of("set of images", name, [*MADE, *DATASETS])
        if len(set(value)) < len(value):
            raise ValueError("a set of images is named twice")
        return value

    @property
    @override
    def images_at_once(self) -> int:
        return min(self.images, AT_ONCE)

    @property
    @override
    def other_datasets(self) -> tuple[str, ...]:
        return tuple(name for name in self.others if name not in MADE)


class AnalysesConfig(Section):
    """What is looked at in trained models, one stage each; its fields are the analyses there are."""

    interpolation: InterpolationConfig = Field(
        default=InterpolationConfig(), description="Images between test images, and their likelihood."
    )
    attention: AttentionMapsConfig = Field(
        default=AttentionMapsConfig(), description="Weights of attention, how far they reach and how even they are."
    )
    audit: AuditConfig = Field(
        default=AuditConfig(), description="Proven bounds of blocks against the largest norms that an attack finds."
    )
    densities: DensitiesConfig = Field(
        default=DensitiesConfig(), description="Likelihoods of training, test and other images."
    )
