"""Settings of the optimisation of one model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from acf.registry import LABELLED_TASKS, OPTIMISERS, TASKS
from acf.settings.log_det_config import TrainingLogDetConfig
from acf.settings.section import Fraction, Natural, Positive, Section, Several, one_of


class MuonConfig(Section):
    """Steps of the weights of convolutions and fully connected layers; used where `training.optimiser` is `muon`."""

    learning_rate: float = Field(
        default=0.05,
        gt=0,
        description="Learning rate for these weights after the warm-up: the spectral norm of a step, where that of the "
        "weight is at most 1. It follows `training.schedule`. The default is this project's choice, measured in "
        "docs/tables/optimisers.md.",
    )
    momentum: float = Field(
        default=0.95,
        ge=0,
        lt=1,
        description="Decay rate of the moving average of gradients. The default is that of `torch.optim.Muon`.",
    )


class TaskConfig(Section):
    """What the flow is trained for: the density of images, their labels, or both (arXiv 1906.02735, section 5.4)."""

    kind: str = Field(
        default="density",
        description="The task: `density` minimises bits/dim; `classification` the cross-entropy -log2 p(y | x) of the "
        "labels y, by heads on the features at the end of every scale; `hybrid` both, with one flow. The latter two "
        "need a data set with labels.",
        json_schema_extra={"enum": [*TASKS]},
    )
    likelihood_weight: float = Field(
        default=1.0,
        gt=0,
        le=1e9,
        description="Weight w of bits/dim in the loss of `hybrid`, w (-log2 p(x) / D + log2 levels) - log2 p(y | x), "
        "where an image has D values. In the objective of arXiv 1906.02735, lambda log p(x) + log p(y | x), lambda is "
        "w / D: the default is its lambda = 1/D, w = D is its lambda = 1, and its lambda = 0 is `classification`.",
    )

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        return one_of("task", value, TASKS)

    @property
    def reads_labels(self) -> bool:
        """Whether the task needs the labels of the images."""
        return self.kind in LABELLED_TASKS


class TrainingConfig(Section):
    """The optimisation of one model."""

    task: TaskConfig = Field(default=TaskConfig(), description="What the flow is trained for.")
    steps: Positive = Field(
        default=1000,
        description="Length of the training, in steps of the optimiser. This project's choice; the code published with "
        "arXiv 1906.02735 counts epochs.",
    )
    batch_size: Positive = Field(
        default=64,
        description="Number of images that pass through the flow together; a step of the optimiser sees this number "
        "times `accumulate`. The default is that of the code published with arXiv 1906.02735.",
    )
    accumulate: Positive = Field(
        default=1,
        description="Number of batches whose gradients are averaged for one step of the optimiser. The code published "
        "with arXiv 1906.02735 has 5 for CelebA-HQ 256 and 1 otherwise.",
    )
    optimiser: str = Field(
        default="adamw",
        description="Rule by which gradients change the parameters: `adamw` (arXiv 1412.6980, 1711.05101), or `muon`, "
        "which moves the weights of convolutions and fully connected layers along directions of equal size "
        "(arXiv 2502.16982), and all other parameters as `adamw`.",
        json_schema_extra={"enum": [*OPTIMISERS]},
    )
    learning_rate: float = Field(
        default=1e-3,
        gt=0,
        description="Learning rate of Adam after the warm-up, for a loss in bits/dim. The default is that of the code "
        "published with arXiv 1906.02735.",
    )
    attention_rate: float = Field(
        default=1.0,
        gt=0,
        le=1e3,
        description="Factor by which the learning rates of attention's parameters, under Adam and Muon, differ from "
        "those of all others. This project's addition.",
    )
    schedule: Literal["constant", "cosine"] = Field(
        default="constant",
        description="Course of the learning rate after the warm-up: constant, as in the code published with "
        "arXiv 1906.02735, or half a cosine down to 0 at the last step, which is this project's addition.",
    )
    warmup_steps: Natural = Field(
        default=1000,
        description="Number of steps in which the learning rate grows linearly to its full value. The default is that "
        "of the code published with arXiv 1906.02735.",
    )
    betas: tuple[Fraction, Fraction] = Field(
        default=(0.9, 0.99),
        strict=False,
        description="Decay rates of Adam's moving averages of the gradient and of its square. The default is that of "
        "the code published with arXiv 1906.02735.",
    )
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        description="Decoupled weight decay (arXiv 1711.05101), per step and unit of learning rate. The default is "
        "that of the code published with arXiv 1906.02735.",
    )
    clip_norm: float = Field(
        default=1.0,
        gt=0,
        description="Largest l2 norm of the gradient of the loss in bits/dim, over all parameters together; longer "
        "gradients are scaled down to it. The default is that of the code published with arXiv 1906.02735.",
    )
    muon: MuonConfig = Field(default=MuonConfig(), description="Muon, for the weights it moves (arXiv 2502.16982).")
    ema_decay: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="Decay rate, per step, of the exponential moving average of the weights; the averaged weights are "
        "the trained model. The default is that of the code published with arXiv 1906.02735.",
    )
    horizontal_flips: bool = Field(
        default=False,
        description="Whether each training image is mirrored left to right with probability 1/2. The code published "
        "with arXiv 1906.02735 does so for CIFAR-10 and CelebA-HQ.",
    )
    validation_images: Several = Field(
        default=1000,
        description="Number of training images that are held out for validation, the same ones for every seed. This "
        "project's choice.",
    )
    validate_every: Positive = Field(
        default=500,
        description="Number of steps between two validations; a tenth of it is the number of steps between two rows of "
        "`history.csv`. This project's choice.",
    )
    keep: Literal["last", "best"] = Field(
        default="last",
        description="Which averaged weights become the model: those of the last step, as in the code published with "
        "arXiv 1906.02735, or those of the validation with the lowest loss of the task (of `density`, bits/dim), this "
        "project's addition.",
    )
    log_det: TrainingLogDetConfig = Field(
        default=TrainingLogDetConfig(),
        description="Estimator of log-determinants in training and validation (arXiv 1906.02735, sections 3.1, 3.2).",
    )

    @field_validator("optimiser")
    @classmethod
    def _known_optimiser(cls, value: str) -> str:
        return one_of("optimiser", value, OPTIMISERS)
