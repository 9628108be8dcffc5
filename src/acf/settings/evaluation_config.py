"""Settings of what is measured on test images, and of the pictures."""

from __future__ import annotations

from pydantic import Field

from acf.settings.log_det_config import EvaluationLogDetConfig
from acf.settings.section import Positive, Section, Seed, Several, Temperature


class EvaluationConfig(Section):
    """How test bits/dim, its standard error and the reconstruction error are measured."""

    draws: Positive = Field(
        default=1,
        description="Number of independent draws of dequantisation and estimator noise per test image; more draws "
        "lower the standard error at proportional cost. This project's choice.",
    )
    images: Several | None = Field(
        default=None,
        description="Number of test images used, the first of the test set; `null` for all. This project's choice.",
    )
    batch_size: Positive = Field(
        default=256,
        description="Number of test images that pass through the flow together. This project's choice; memory grows "
        "with it.",
    )
    seed: Seed = Field(
        default=0,
        description="Seed of the dequantisation and estimator noise, the same for all models of an experiment. This "
        "project's choice.",
    )
    log_det: EvaluationLogDetConfig = Field(
        default=EvaluationLogDetConfig(),
        description="Estimator of log-determinants on test images (arXiv 1906.02735, section 3.1, and ours).",
    )


class SamplingConfig(Section):
    """The pictures of one model: samples, at several temperatures and above training images, and reconstructions."""

    samples: Positive = Field(
        default=64,
        description="Number of images in the grid of samples, and of test images whose distances to the training "
        "images are compared with theirs. This project's choice.",
    )
    columns: Positive = Field(
        default=10,
        description="Number of samples, the first ones, that are shown at every temperature, and above their nearest "
        "training images. This project's choice.",
    )
    reconstructions: Positive = Field(
        default=16,
        description="Number of test images, the first of the test set, shown above what the inverse makes of their "
        "latent vectors. This project's choice.",
    )
    temperatures: list[Temperature] = Field(
        default=[1.0, 0.9, 0.8, 0.7],
        min_length=1,
        description="Factors on the standard normal noise that samples start from; 1 samples from the model's own "
        "density, a smaller factor draws closer to the mode, as arXiv 1807.03039 does. The grid of samples, and those "
        "compared with training images, are of the first. The default is this project's choice.",
    )
    seed: Seed = Field(
        default=0,
        description="Seed of the noise that samples start from, the same for all models of an experiment. This "
        "project's choice.",
    )
