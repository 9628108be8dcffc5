"""The one schema of settings: the sections of `params.yaml` and a stored model's `config.json`."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from acf.errors import ConfigError, dotted, shown
from acf.registry import ACTIVATIONS, ATTENTIONS, BRANCHES, JOINS, OPTIMISERS

SEEDS = 2**63
"""Seeds are below this: torch's generators and both engines take them all, and an offset may be added to one."""


def _without_numpy(value: Any) -> Any:
    """Return an integer of numpy as Python's; what is no integer is left for the strict schema to refuse."""
    return int(value) if isinstance(value, numbers.Integral) and not isinstance(value, bool) else value


_INTEGRAL = BeforeValidator(_without_numpy)
MOST = 2**31
MOST_BLOCKS = 1000
"""They are made one after the other, so that a million of them would take days and not end in an error."""
MOST_TERMS = 1000
"""Of the power series: each costs a product with the Jacobian."""

Fraction = Annotated[float, Field(gt=0, lt=1)]
Natural = Annotated[int, Field(ge=0, lt=MOST), _INTEGRAL]
Positive = Annotated[int, Field(ge=1, lt=MOST), _INTEGRAL]
Several = Annotated[int, Field(ge=2, lt=MOST), _INTEGRAL]
Blocks = Annotated[int, Field(ge=1, le=MOST_BLOCKS), _INTEGRAL]
Terms = Annotated[int, Field(ge=0, le=MOST_TERMS), _INTEGRAL]
Levels = Annotated[int, Field(ge=2, le=256), _INTEGRAL]
Seed = Annotated[int, Field(ge=0, lt=SEEDS), _INTEGRAL]


def _one_of(what: str, value: str, known: Iterable[str]) -> str:
    if value not in known:
        raise ValueError(f"unknown {what} {shown(value)}; known: {', '.join(sorted(known))}")
    return value


class Section(BaseModel):
    """A group of settings: unknown keys are refused, values do not change after validation.

    A boolean is not taken for a number, nor text for a number or a boolean, nor 3.0 for a whole number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class LogDetConfig(Section):
    """The estimator of log|det(I + J_g)|: exact leading terms of the power series, then Russian roulette.

    It is unbiased for every choice of these settings; they decide its variance and its cost.
    """

    exact_terms: Terms = Field(
        default=2,
        description="Number of leading terms of the power series that are always computed, before a random number of "
        "further terms. The default of 2 is that of the code published with arXiv 1906.02735.",
    )
    distribution: Literal["poisson", "geometric"] = Field(
        default="poisson",
        description="Distribution of the number of further terms (arXiv 1906.02735, section 3.1). The Poisson "
        "distribution is the default of the code published with that paper.",
    )
    parameter: float = Field(
        default=2.0,
        gt=0,
        le=MOST_TERMS,
        description="Rate of the Poisson distribution, which is the mean number of further terms, or success "
        "probability p of the geometric distribution, which must lie below 1 and gives (1 - p) / p further terms on "
        "average. The default is the rate of the code published with arXiv 1906.02735.",
    )
    probe: Literal["rademacher", "gaussian"] = Field(
        default="rademacher",
        description="Distribution of the random vector that estimates traces: independent signs, or independent "
        "standard normal values. The default is this project's choice, because signs never have the larger variance "
        "for the trace of a matrix.",
    )

    @model_validator(mode="after")
    def _geometric_rate(self) -> Self:
        if self.distribution == "geometric" and not self.parameter < 1:
            raise ValueError("parameter of the geometric distribution must lie strictly between 0 and 1")
        if self.distribution == "geometric" and self.parameter < 1 / MOST_TERMS:
            raise ValueError(f"parameter of the geometric distribution must be at least {1 / MOST_TERMS}")
        return self


class TrainingLogDetConfig(LogDetConfig):
    """The estimator in training, with the way its gradient is formed."""

    neumann_gradient: bool = Field(
        default=True,
        description="Whether the gradient comes from the Neumann series, whose memory does not grow with the number of "
        "terms, instead of differentiating the estimate itself. Both are unbiased (arXiv 1906.02735, section 3.2).",
    )
    memory_efficient: bool = Field(
        default=True,
        description="Whether a residual block keeps little more than its input for the backward pass and computes its "
        "branch again there, instead of keeping all intermediate results. This project's way to the memory that "
        "arXiv 1906.02735, section 3.2, saves by computing gradients in the forward pass.",
    )
    bfloat16: bool = Field(
        default=False,
        description="Whether products with Jacobians, and the gradient through branches without attention, are "
        "computed in bfloat16. It needs `neumann_gradient` and `memory_efficient`. This project's addition, measured "
        "in docs/performance.md.",
    )

    @model_validator(mode="after")
    def _bfloat16_needs_explicit_products(self) -> Self:
        if self.bfloat16 and not (self.neumann_gradient and self.memory_efficient):
            raise ValueError("bfloat16 needs neumann_gradient and memory_efficient")
        return self


class EvaluationLogDetConfig(LogDetConfig):
    """The estimator in evaluation.

    With a geometric number of further terms its variance is finite where the spectral radius of the Jacobian lies below
    sqrt(1 - p), which is 0.707 for p = 0.5. With a Poisson number it is infinite unless the Jacobian is nilpotent
    (docs/mathematics.md, Proposition 10c).
    """

    exact_terms: Terms = Field(
        default=20,
        description="Number of leading terms of the power series that are always computed, before a random number of "
        "further terms. The default of 20 is that of the code published with arXiv 1906.02735.",
    )
    distribution: Literal["poisson", "geometric"] = Field(
        default="geometric",
        description="Distribution of the number of further terms (arXiv 1906.02735, section 3.1). The geometric "
        "distribution is this project's choice, because its variance can be finite (docs/mathematics.md, "
        "Proposition 10c).",
    )
    parameter: float = Field(
        default=0.5,
        gt=0,
        le=MOST_TERMS,
        description="Success probability p of the geometric distribution, which must lie below 1 and gives (1 - p) / p "
        "further terms on average, or rate of the Poisson distribution, which is the mean number of further terms. The "
        "default is that of the code published with arXiv 1906.02735.",
    )
    probes: Positive = Field(
        default=1,
        description="Number of random vectors for the first exact term; the k-th exact term uses this number divided "
        "by 2^(k-1) and rounded down, but at least one. Several need at least one exact term. This project's addition, "
        "after hierarchical probing (arXiv 1302.4018), measured in docs/tables/evaluation.md.",
    )

    @model_validator(mode="after")
    def _probes_in_use(self) -> Self:
        if self.probes > 1 and self.exact_terms == 0:
            raise ValueError("several probes share the exact terms, so exact_terms must be at least 1")
        return self


class AttentionConfig(Section):
    """Self-attention over all positions of a feature map: which form, in which blocks, and how it is joined to them."""

    kind: str = Field(
        default="none",
        description="Form of attention, or `none` for a flow without attention. `l2` is the L2 form (arXiv 2006.04710, "
        "used by arXiv 2109.12135), `dot` the dot-product form under Lipschitz normalisation (arXiv 2103.04886, used "
        "by arXiv 2109.12135), `clip` softmax on clipped tokens and `sinkhorn` doubly stochastic weights, both this "
        "project's (docs/mathematics.md, Theorems 1 to 4).",
        json_schema_extra={"enum": ["none", *ATTENTIONS]},
    )
    heads: Positive = Field(
        default=4,
        description="Number of attention heads; it need not divide the number of channels. The default is this "
        "project's choice.",
    )
    join: str = Field(
        default="block",
        description="How attention is joined to the flow. `block` makes it a residual block of its own after the "
        "convolutional block. The others put it before the last convolution of the branch, where arXiv 2109.12135 has "
        "it: `convex` mixes features and attention with a learnt weight, `concatenate` stacks both along the channels "
        "with a learnt angle, and `split` applies attention to a part of the channels. All four are this project's, "
        "measured in docs/tables/joins.md.",
        json_schema_extra={"enum": ["block", *JOINS]},
    )
    share: float = Field(
        default=0.5,
        ge=1e-6,
        le=1 - 1e-6,
        description="Weight of attention at the start of training for `convex` and `concatenate`, share of the "
        "channels that attention works on for `split`; without effect for `block`. The default is this project's "
        "choice.",
    )
    every: Positive = Field(
        default=1,
        description="Distance, in blocks, between the convolutional (or dense) blocks of a scale that get attention: "
        "with 3, every third has it, with 1 all of them, as in arXiv 2109.12135.",
    )
    max_tokens: Positive = Field(
        default=4096,
        description="Largest number of positions (height times width) of a map that gets attention; scales with larger "
        "maps have none, because cost grows with the square of that number. The default is this project's choice.",
    )

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        return _one_of("attention", value, ("none", *ATTENTIONS))

    @field_validator("join")
    @classmethod
    def _known_join(cls, value: str) -> str:
        return _one_of("way of joining", value, ("block", *JOINS))


class DenseConfig(Section):
    """The densely connected branch of an i-DenseNet; used where `model.branch` is `dense`."""

    depth: Blocks = Field(
        default=3,
        description="Number of dense layers in a branch, each a 3x3 convolution whose result is concatenated to its "
        "input. The default is that of arXiv 2102.02694 for CIFAR-10 and ImageNet 32x32.",
    )
    growth: Positive = Field(
        default=172,
        description="Number of channels that each dense layer adds; with `clipswish`, which doubles channels, it must "
        "be even. The default is that of arXiv 2102.02694 for CIFAR-10 and ImageNet 32x32.",
    )


class ModelParams(Section):
    """The architecture: everything about a flow that does not depend on its data set."""

    blocks: list[Blocks] = Field(
        default=[16, 16, 16],
        strict=False,
        min_length=1,
        description="Number of convolutional (or dense) residual blocks of each scale, one entry per scale; between "
        "scales maps are halved in height and width. The default is that of arXiv 1906.02735, appendix E, for MNIST "
        "and CIFAR-10.",
    )
    idim: Positive = Field(
        default=512,
        description="Number of channels between the convolutions of a branch; without effect on dense branches. The "
        "default is that of arXiv 1906.02735, appendix E.",
    )
    kernels: list[Positive] = Field(
        default=[3, 1, 3],
        strict=False,
        min_length=1,
        description="Height and width of each convolution's kernel in a branch, in pixels and odd, one entry per "
        "convolution; without effect on dense branches. The default is that of arXiv 1906.02735, appendix E.",
    )
    branch: str = Field(
        default="conv",
        description="Form of the branch g of a residual block x + g(x): `conv` alternates activations and convolutions "
        "(arXiv 1906.02735), `dense` is densely connected (arXiv 2102.02694).",
        json_schema_extra={"enum": [*BRANCHES]},
    )
    activation: str = Field(
        default="lipswish",
        description="Activation function in all branches: `lipswish` (arXiv 1906.02735, section 3.3), `elu`, which "
        "the CelebA-HQ 256 model of that paper's code uses, or `clipswish` (arXiv 2102.02694), which doubles the "
        "number of channels.",
        json_schema_extra={"enum": [*ACTIVATIONS]},
    )
    coefficient: Fraction = Field(
        default=0.98,
        description="Largest spectral norm that a convolution or fully connected layer may have; a larger one is "
        "scaled down to it (arXiv 1811.00995). The default is that of arXiv 1906.02735, appendix E.",
    )
    power_iterations: Positive = Field(
        default=5,
        description="Number of steps of power iteration that refresh the estimated spectral norms after each step of "
        "the optimiser. This project's choice; the code published with arXiv 1906.02735 iterates to a tolerance "
        "instead. The certificate does not rely on these estimates.",
    )
    actnorm: bool = Field(
        default=True,
        description="Whether activation normalisation (arXiv 1807.03039, section 3.1) stands at the start of a scale "
        "and after each residual block, as in the image models of arXiv 1906.02735.",
    )
    fc_blocks: Annotated[int, Field(ge=0, le=MOST_BLOCKS), _INTEGRAL] = Field(
        default=4,
        description="Number of residual blocks with fully connected layers at the end of the last scale. The default "
        "is that of arXiv 1906.02735, appendix E.",
    )
    fc_width: Positive = Field(
        default=128,
        description="Number of values in the two hidden layers of a fully connected block. The default is that of "
        "arXiv 1906.02735, appendix E.",
    )
    factor_out: bool = Field(
        default=False,
        description="Whether half of the channels leave the flow after each scale but the last (arXiv 1605.08803, "
        "section 3.6). The code published with arXiv 1906.02735 does so for ImageNet 64x64 and CelebA-HQ 256.",
    )
    squeeze_first: bool = Field(
        default=False,
        description="Whether images are halved in height and width, at four times the channels, before the first scale "
        "as well as between scales. The code published with arXiv 1906.02735 does so for ImageNet 64x64 and "
        "CelebA-HQ 256.",
    )
    logit_alpha: float = Field(
        default=0.05,
        ge=1e-30,
        lt=0.5,
        description="Offset a of the first transform, logit(a + (1 - 2a) x) for pixel values x between 0 and 1 "
        "(arXiv 1605.08803, section 4.1). The default is that of arXiv 1906.02735, appendix E, which has 1e-6 for "
        "MNIST.",
    )
    attention: AttentionConfig = Field(
        default=AttentionConfig(),
        description="Self-attention in the convolutional or dense blocks (arXiv 2109.12135).",
    )
    dense: DenseConfig = Field(default=DenseConfig(), description="Size of dense branches (arXiv 2102.02694).")

    @field_validator("branch")
    @classmethod
    def _known_branch(cls, value: str) -> str:
        return _one_of("branch", value, BRANCHES)

    @field_validator("activation")
    @classmethod
    def _known_activation(cls, value: str) -> str:
        return _one_of("activation", value, ACTIVATIONS)

    @field_validator("kernels")
    @classmethod
    def _odd(cls, value: list[int]) -> list[int]:
        if any(k % 2 == 0 for k in value):
            raise ValueError("kernels must be odd so that the map keeps its size")
        return value


class ModelConfig(ModelParams):
    """Everything `acf.build` needs: the architecture, the data's form, the estimators."""

    shape: tuple[Positive, Positive, Positive] = Field(
        strict=False,
        description="Channels, height and width of an image, the latter two in pixels; a property of the data set.",
    )
    levels: Levels = Field(default=256, description="Number of grey levels of an image; a property of the data set.")
    training_log_det: TrainingLogDetConfig = Field(
        default=TrainingLogDetConfig(),
        description="Estimator of log-determinants in training mode (arXiv 1906.02735, sections 3.1 and 3.2).",
    )
    evaluation_log_det: EvaluationLogDetConfig = Field(
        default=EvaluationLogDetConfig(),
        description="Estimator of log-determinants in evaluation mode (arXiv 1906.02735, section 3.1, and ours).",
    )


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


class TrainingConfig(Section):
    """The optimisation of one model."""

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
        "arXiv 1906.02735, or those of the validation with the lowest bits/dim, this project's addition.",
    )
    log_det: TrainingLogDetConfig = Field(
        default=TrainingLogDetConfig(),
        description="Estimator of log-determinants in training and validation (arXiv 1906.02735, sections 3.1, 3.2).",
    )

    @field_validator("optimiser")
    @classmethod
    def _known_optimiser(cls, value: str) -> str:
        return _one_of("optimiser", value, OPTIMISERS)


class DatasetConfig(Section):
    """What models see of a data set."""

    levels: Levels | None = Field(
        default=None,
        description="Number of grey levels that models see, which must divide the number stored; `null` for as many as "
        "are stored. 32 levels are the 5 bits that arXiv 1906.02735 uses for CelebA-HQ 256.",
    )


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
    """The pictures of one model: a grid of samples and a grid of reconstructions."""

    samples: Positive = Field(default=64, description="Number of images in the grid of samples. This project's choice.")
    reconstructions: Positive = Field(
        default=16,
        description="Number of test images, the first of the test set, shown above what the inverse makes of their "
        "latent vectors. This project's choice.",
    )
    temperature: float = Field(
        default=1.0,
        gt=0,
        description="Factor on the standard normal noise that samples start from; 1 samples from the model's own "
        "density, a smaller factor draws closer to the mode, as arXiv 1807.03039 does. The default is this "
        "project's choice.",
    )
    seed: Seed = Field(
        default=0,
        description="Seed of the noise that samples start from, the same for all models of an experiment. This "
        "project's choice.",
    )


class RunConfig(Section):
    """All settings of one run, defaults and overrides merged."""

    model: ModelParams = Field(description="Architecture of the flow (arXiv 1906.02735 and 2109.12135).")
    training: TrainingConfig = Field(description="Optimisation (after the code published with arXiv 1906.02735).")
    evaluation: EvaluationConfig = Field(description="Measurements on test images (this project's choices).")
    sampling: SamplingConfig = Field(description="Pictures of samples and reconstructions (this project's choices).")


_WORDS = {
    "extra_forbidden": "unknown key",
    "invalid_key": "unknown key",
    "missing": "is missing",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "dict_type": "must be a mapping of keys to values",
}


def wording(error: Any) -> str:
    """Return one of pydantic's errors in words for people, on one line."""
    kind = error["type"]
    message = _WORDS.get(kind) or error["msg"].removeprefix("Value error, ")
    if isinstance(error["input"], Mapping) or kind in ("extra_forbidden", "invalid_key", "missing"):
        return message
    return f"{message} (got {shown(error['input'])})"


def model_config_from(value: ModelConfig | Mapping[str, Any]) -> ModelConfig:
    """Return `value` as a `ModelConfig`.

    Raises:
        ConfigError: no mapping, unknown key or impossible value; the message names the key.
    """
    if isinstance(value, ModelConfig):
        return value
    if not isinstance(value, Mapping):
        raise ConfigError(f"model configuration: must be a mapping of keys to values (got {shown(value)})")
    try:
        return ModelConfig.model_validate(dict(value))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"model configuration: {dotted(first['loc'])}: {wording(first)}") from None
