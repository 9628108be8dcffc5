"""The one schema of settings: the sections of `params.yaml` and a stored model's `config.json`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from acf.errors import ConfigError
from acf.registry import ACTIVATIONS, ATTENTIONS, BRANCHES, JOINS

Fraction = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[int, Field(ge=1)]


def _one_of(what: str, value: str, known: Iterable[str]) -> str:
    if value not in known:
        raise ValueError(f"unknown {what} {value!r}; known: {', '.join(sorted(known))}")
    return value


class Section(BaseModel):
    """A group of settings: unknown keys are refused, values do not change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LogDetConfig(Section):
    """Estimator of log|det(I + J_g)|: exact leading terms of the power series, then Russian roulette."""

    exact_terms: int = Field(default=2, ge=0)
    distribution: Literal["poisson", "geometric"] = "poisson"
    parameter: float = Field(default=2.0, gt=0, description="rate of the Poisson, success rate of the geometric")
    probe: Literal["rademacher", "gaussian"] = "rademacher"

    @model_validator(mode="after")
    def _geometric_rate(self) -> Self:
        if self.distribution == "geometric" and not self.parameter < 1:
            raise ValueError("parameter of the geometric distribution must lie strictly between 0 and 1")
        return self


class TrainingLogDetConfig(LogDetConfig):
    """The estimator in training, with the way its gradient is formed (arXiv 1906.02735, section 3.2)."""

    neumann_gradient: bool = True
    memory_efficient: bool = True
    bfloat16: bool = Field(
        default=False,
        description="compute products with Jacobians, and the gradient through branches without attention, in bfloat16",
    )

    @model_validator(mode="after")
    def _bfloat16_needs_explicit_products(self) -> Self:
        if self.bfloat16 and not (self.neumann_gradient and self.memory_efficient):
            raise ValueError("bfloat16 needs neumann_gradient and memory_efficient")
        return self


class EvaluationLogDetConfig(LogDetConfig):
    """The estimator in evaluation; geometric lengths have finite variance for spectral radii below sqrt(1 - p).

    At p = 0.5 that is 0.707; Poisson lengths never have (docs/mathematics.md, Proposition 10c).
    """

    exact_terms: int = Field(default=20, ge=0)
    distribution: Literal["poisson", "geometric"] = "geometric"
    parameter: float = Field(default=0.5, gt=0)
    probes: Positive = Field(
        default=1, description="probes of the first exact term; the k-th has probes // 2^(k-1), at least one"
    )

    @model_validator(mode="after")
    def _probes_in_use(self) -> Self:
        if self.probes > 1 and self.exact_terms == 0:
            raise ValueError("several probes share the exact terms, so exact_terms must be at least 1")
        return self


class AttentionConfig(Section):
    """Self-attention in the convolutional blocks: which, and how it joins them."""

    kind: str = "none"
    heads: Positive = 4
    join: str = Field(
        default="block",
        description="before a branch's last convolution: convex, concatenate, split; or block: a block of its own",
    )
    share: Fraction = Field(default=0.5, description="weight of attention at the start (split: share of the channels)")
    every: Positive = Field(default=1, description="attention in every n-th convolutional block of a scale")
    max_tokens: Positive = Field(
        default=4096, description="no attention in scales whose maps have more positions; cost grows with their square"
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
    """The dense branch: number of layers, and channels that each adds (arXiv 2102.02694)."""

    depth: Positive = 3
    growth: Positive = 172


class ModelParams(Section):
    """The architecture, free of the data set (arXiv 1906.02735, appendix E; arXiv 2109.12135)."""

    blocks: list[Positive] = Field(default=[16, 16, 16], min_length=1)
    idim: Positive = 512
    kernels: list[Positive] = Field(default=[3, 1, 3], min_length=1)
    branch: str = "conv"
    activation: str = "lipswish"
    coefficient: Fraction = 0.98
    power_iterations: Positive = 5
    actnorm: bool = True
    fc_blocks: int = Field(default=4, ge=0)
    fc_width: Positive = 128
    factor_out: bool = False
    squeeze_first: bool = False
    logit_alpha: float = Field(default=0.05, gt=0, lt=0.5)
    attention: AttentionConfig = AttentionConfig()
    dense: DenseConfig = DenseConfig()

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

    shape: tuple[Positive, Positive, Positive]
    levels: int = Field(default=256, ge=2, le=256)
    training_log_det: TrainingLogDetConfig = TrainingLogDetConfig()
    evaluation_log_det: EvaluationLogDetConfig = EvaluationLogDetConfig()


class TrainingConfig(Section):
    """The optimisation of one model."""

    steps: Positive = 1000
    batch_size: Positive = 64
    accumulate: Positive = 1
    learning_rate: float = Field(default=1e-3, gt=0)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: int = Field(default=1000, ge=0)
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    weight_decay: float = Field(default=0.0, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    horizontal_flips: bool = False
    validation_images: int = Field(default=1000, ge=2)
    validate_every: Positive = 500
    log_det: TrainingLogDetConfig = TrainingLogDetConfig()


class DatasetConfig(Section):
    """What models see of a data set."""

    levels: int | None = Field(
        default=None, ge=2, le=256, description="grey levels, a divisor of those stored; null: as stored"
    )


class EvaluationConfig(Section):
    """How test bits/dim, its standard error and the reconstruction error are measured."""

    draws: Positive = 1
    images: int | None = Field(default=None, ge=2, description="first test images used; null: all")
    batch_size: Positive = 256
    seed: int = Field(default=0, ge=0)
    log_det: EvaluationLogDetConfig = EvaluationLogDetConfig()


class SamplingConfig(Section):
    """The pictures of one model."""

    samples: Positive = 64
    reconstructions: Positive = 16
    temperature: float = Field(default=1.0, gt=0)
    seed: int = Field(default=0, ge=0)


class RunConfig(Section):
    """All settings of one run, defaults and overrides merged."""

    model: ModelParams
    training: TrainingConfig
    evaluation: EvaluationConfig
    sampling: SamplingConfig


def wording(error: Any) -> str:
    """Return one of pydantic's errors in words for people."""
    if error["type"] == "extra_forbidden":
        return "unknown key"
    message = error["msg"].removeprefix("Value error, ")
    return message if isinstance(error["input"], Mapping) else f"{message} (got {error['input']!r})"


def model_config_from(value: ModelConfig | Mapping[str, Any]) -> ModelConfig:
    """Return `value` as a `ModelConfig`.

    Raises:
        ConfigError: unknown key or impossible value; the message names the key.
    """
    if isinstance(value, ModelConfig):
        return value
    try:
        return ModelConfig.model_validate(dict(value))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"model configuration: {'.'.join(map(str, first['loc']))}: {wording(first)}") from None
