"""Settings of the analyses: what is looked at in a trained model beside its bits/dim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field, field_validator
from typing_extensions import override

from acf.registry import DATASETS
from acf.runs.inception_weights import inception_state
from acf.settings.analysis_section import AnalysisSection, rising_from_zero
from acf.settings.section import Natural, Positive, Section, Several, Temperature, one_of

AT_ONCE = 64
"""Images that an analysis of many sends through the flow together."""
MADE = ("noise", "shuffled")
"""Sets of images that are made and not read."""

NotNegative = Annotated[float, Field(ge=0, le=1e3)]
Place = Annotated[float, Field(ge=0, le=1)]


class InterpolationConfig(AnalysisSection):
    """Paths between pairs of test images, straight and along great circles in latent space."""

    every_seed: ClassVar[bool] = True
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


class AttributesConfig(AnalysisSection):
    """Attribute arithmetic: test images moved in latent space from the mean of their class to that of another."""

    has_picture: ClassVar[bool] = True
    reads_labels: ClassVar[bool] = True

    alphas: list[NotNegative] = Field(
        default=[0.0, 0.25, 0.5, 0.75, 1.0, 1.5],
        min_length=2,
        max_length=100,
        description="How far images are moved: 0 for not at all, 1 for the whole difference of the means, in rising "
        "order. This project's choice.",
    )
    images: Several = Field(
        default=300, description="Number of test images, the first of the test set. This project's choice."
    )
    train_images: Several = Field(
        default=5000,
        description="Number of training images, the first ones, over which means are taken, to which the classifier "
        "is fitted and among which nearest images are sought. This project's choice.",
    )
    pictured_images: Positive = Field(
        default=8, le=1000, description="Number of images that the picture shows, the first. This project's choice."
    )

    @field_validator("alphas")
    @classmethod
    def _rising_from_zero(cls, alphas: list[float]) -> list[float]:
        return rising_from_zero(alphas)


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
        return rising_from_zero(sigmas)


class FrechetConfig(AnalysisSection):
    """Fréchet distance of samples to test images, on features of the training images, and FID."""

    every_seed: ClassVar[bool] = True

    samples: Several = Field(
        default=1000,
        description="Number of samples, and of test and training images that they are compared with (the first test "
        "images, or all if there are not as many). Distances grow as sets get smaller; published FIDs use 10,000 or "
        "50,000 samples. This project's choice.",
    )
    temperature: Temperature = Field(
        default=1.0, description="Factor on the standard normal noise that samples start from. This project's choice."
    )
    features: Positive = Field(
        default=32,
        description="Number of principal components of training images that are the features. This project's choice.",
    )
    fitted: Several = Field(
        default=5000,
        description="Number of training images, drawn at random, that the principal components are fitted to; all if "
        "there are not as many. They lie in memory at once, 8 bytes a value. This project's choice.",
    )
    bootstrap: Several = Field(
        default=100,
        description="Number of draws with replacement that the standard error is computed from. This project's choice.",
    )
    fid: bool = Field(
        default=True,
        description="Whether FID (arXiv 1706.08500) is computed of colour images, where torch-fidelity "
        "(`pip install 'acf[fid]'`) and its weights are there: in torch.hub's folder, or where the environment "
        "variable ACF_INCEPTION says. Nothing is downloaded. Snakemake computes again when they come; of DVC it is "
        "asked for with `--force`.",
    )
    batch_size: Positive = Field(
        default=200,
        description="Number of samples that are drawn together. This project's choice; memory grows with it.",
    )

    @property
    def images_at_once(self) -> int:
        """Samples that are drawn together."""
        return self.batch_size

    @override
    def outside(self, shape: Sequence[int]) -> Mapping[str, str]:
        return inception_state() if self.fid and shape[0] == 3 else {}


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
    attributes: AttributesConfig = Field(
        default=AttributesConfig(), description="Images moved from one class to another by arithmetic in latent space."
    )
    noise: NoiseConfig = Field(
        default=NoiseConfig(), description="How a model takes additive white Gaussian noise on test images."
    )
    frechet: FrechetConfig = Field(
        default=FrechetConfig(), description="Distance of the law of samples to that of test images."
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
