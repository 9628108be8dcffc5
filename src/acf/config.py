"""The one schema of `params.yaml` and of a stored model's `config.json`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from acf.errors import ConfigError
from acf.registry import ACTIVATIONS, ATTENTIONS, BRANCHES, DATASETS

PARAMS_FILE = Path("params.yaml")
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


class EvaluationLogDetConfig(LogDetConfig):
    """The estimator in evaluation; geometric lengths keep its variance finite (docs/mathematics.md, Proposition 8)."""

    exact_terms: int = Field(default=20, ge=0)
    distribution: Literal["poisson", "geometric"] = "geometric"
    parameter: float = Field(default=0.5, gt=0)


class AttentionConfig(Section):
    """Self-attention before the last convolution of each convolutional branch."""

    kind: str = "none"
    heads: Positive = 4
    share: Fraction = 0.5

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        return _one_of("attention", value, ("none", *ATTENTIONS))


class ModelParams(Section):
    """The architecture, free of the data set (arXiv 1906.02735, appendix E; arXiv 2109.12135)."""

    blocks: list[Positive] = Field(default=[16, 16, 16], min_length=1)
    idim: Positive = 512
    kernels: list[Positive] = Field(default=[3, 1, 3], min_length=1)
    branch: str = "conv"
    activation: str = "lipswish"
    coefficient: Fraction = 0.98
    power_iterations: Positive = 1
    actnorm: bool = True
    fc_blocks: int = Field(default=4, ge=0)
    fc_width: Positive = 128
    factor_out: bool = False
    squeeze_first: bool = False
    logit_alpha: float = Field(default=0.05, gt=0, lt=0.5)
    attention: AttentionConfig = AttentionConfig()

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
    validation_images: Positive = 1000
    validate_every: Positive = 500
    log_det: TrainingLogDetConfig = TrainingLogDetConfig()


class EvaluationConfig(Section):
    """How test bits/dim, its standard error and the reconstruction error are measured."""

    draws: Positive = 1
    images: Positive | None = Field(default=None, description="first test images used; null: all")
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


class Run(NamedTuple):
    """One trained model of the study."""

    dataset: str
    variant: str
    seed: int


class Params:
    """`params.yaml`: read, merged and validated.

    The settings of a run are merged from four places, the later over the earlier: `defaults`, `experiments.D`,
    `variants.V` (model only) and `experiments.D.variants.V` (model and training).

    Raises:
        ConfigError: unreadable file, unknown or missing key, impossible value; the message has key and line.
    """

    def __init__(self, path: Path | str = PARAMS_FILE) -> None:
        self.path = Path(path)
        self._lines: dict[tuple[str | int, ...], int] = {}
        self.raw = self._read()
        self._check_layout()
        self._runs = {(d, v): self._resolve(d, v) for d in self.datasets for v in self.variants(d)}

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets under `experiments`."""
        return list(self.raw["experiments"])

    def variants(self, dataset: str) -> list[str]:
        """Names of the variants compared on `dataset`."""
        return list(self._experiment(dataset)["variants"])

    def seeds(self, dataset: str) -> list[int]:
        """Seeds trained on `dataset`."""
        return list(self._experiment(dataset)["seeds"])

    def runs(self) -> Iterator[Run]:
        """All models of the study, in the order of the file."""
        for dataset in self.datasets:
            for variant in self.variants(dataset):
                for seed in self.seeds(dataset):
                    yield Run(dataset, variant, seed)

    def resolve(self, dataset: str, variant: str) -> RunConfig:
        """Return the merged settings of `variant` on `dataset`."""
        if variant not in self.variants(dataset):
            known = ", ".join(self.variants(dataset))
            raise ConfigError(f"{self.path}: experiments.{dataset} has no variant {variant!r}; it has: {known}")
        return self._runs[dataset, variant]

    def evaluation(self, dataset: str) -> EvaluationConfig:
        """Return the evaluation settings all variants of `dataset` share."""
        return self.resolve(dataset, self.variants(dataset)[0]).evaluation

    def _experiment(self, dataset: str) -> dict[str, Any]:
        if dataset not in self.raw["experiments"]:
            known = ", ".join(self.datasets)
            raise ConfigError(f"{self.path}: no experiment on {dataset!r}; experiments has: {known}")
        return self.raw["experiments"][dataset]

    def _read(self) -> dict[str, Any]:
        try:
            node = yaml.compose(self.path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
            data = yaml.safe_load(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{self.path} not found; run acf in the project's top folder") from None
        except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
            raise ConfigError(f"{self.path} cannot be read as YAML: {error}") from None
        if node is not None:
            self._record(node, ())
        return data if isinstance(data, dict) else {}

    def _record(self, node: yaml.Node, path: tuple[str | int, ...]) -> None:
        self._lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                if key.value in seen:
                    raise ConfigError(f"{self.path}:{key.start_mark.line + 1}: key {key.value!r} stands twice")
                seen.add(key.value)
                self._lines[(*path, key.value)] = key.start_mark.line + 1
                self._record(value, (*path, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self._record(value, (*path, index))

    def _fail(self, path: tuple[str | int, ...], message: str) -> ConfigError:
        known = path
        while known not in self._lines and known:
            known = known[:-1]
        name = ".".join(map(str, path)) or "the file"
        return ConfigError(f"{self.path}:{self._lines.get(known, 1)}: {name}: {message}")

    def _mapping(self, path: tuple[str, ...], required: set[str] | None, optional: set[str]) -> dict[str, Any]:
        value: Any = self.raw
        for key in path:
            value = value[key]
        if not isinstance(value, dict):
            raise self._fail(path, "must be a mapping of keys to values (write {} for an empty one)")
        if required is not None:
            for key in sorted(required - set(value)):
                raise self._fail(path, f"key {key!r} is missing")
            for key in value:
                if key not in required | optional:
                    raise self._fail((*path, key), f"unknown key; known: {', '.join(sorted(required | optional))}")
        return value

    def _check_layout(self) -> None:
        self._mapping((), {"defaults", "variants", "experiments"}, set())
        parts = {"model", "training", "evaluation", "sampling"}
        self._mapping(("defaults",), parts, set())
        for variant in self._mapping(("variants",), None, set()):
            self._mapping(("variants", variant), set(), {"model"})
        if not self._mapping(("experiments",), None, set()):
            raise self._fail(("experiments",), "names no data set")
        for dataset in self.raw["experiments"]:
            self._check_experiment(dataset, parts)

    def _check_experiment(self, dataset: str, parts: set[str]) -> None:
        path = ("experiments", dataset)
        if dataset not in DATASETS:
            raise self._fail(path, f"unknown data set; known: {', '.join(sorted(DATASETS))}")
        experiment = self._mapping(path, parts | {"seeds", "variants"}, set())
        seeds = experiment["seeds"]
        if (
            not isinstance(seeds, list)
            or not seeds
            or not all(isinstance(s, int) and not isinstance(s, bool) and s >= 0 for s in seeds)
            or len(set(seeds)) < len(seeds)
        ):
            raise self._fail((*path, "seeds"), "must be a list of different whole numbers, at least one")
        if not self._mapping((*path, "variants"), None, set()):
            raise self._fail((*path, "variants"), "names no variant")
        for variant in experiment["variants"]:
            if variant not in self.raw["variants"]:
                known = ", ".join(self.raw["variants"])
                raise self._fail((*path, "variants", variant), f"unknown variant; variants has: {known}")
            self._mapping((*path, "variants", variant), set(), {"model", "training"})

    def _resolve(self, dataset: str, variant: str) -> RunConfig:
        origin: dict[tuple[str | int, ...], tuple[str | int, ...]] = {}
        merged: dict[str, Any] = {}
        for source in (
            ("defaults",),
            ("experiments", dataset),
            ("variants", variant),
            ("experiments", dataset, "variants", variant),
        ):
            section: Any = self.raw
            for key in source:
                section = section[key]
            for part in ("model", "training", "evaluation", "sampling"):
                if part in section:
                    self._mapping((*source, part), None, set())
                    _merge(merged.setdefault(part, {}), section[part], (part,), (*source, part), origin)
        try:
            return RunConfig.model_validate(merged)
        except ValidationError as error:
            first = error.errors()[0]
            location = tuple(first["loc"])
            raise self._fail(_origin(location, origin), _wording(first)) from None


def _merge(
    into: dict[str, Any],
    new: Mapping[str, Any],
    at: tuple[str | int, ...],
    source: tuple[str | int, ...],
    origin: dict[tuple[str | int, ...], tuple[str | int, ...]],
) -> None:
    for key, value in new.items():
        origin[(*at, key)] = (*source, key)
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value, (*at, key), (*source, key), origin)
        elif isinstance(value, dict):
            into[key] = {}
            _merge(into[key], value, (*at, key), (*source, key), origin)
        else:
            into[key] = value


def _origin(
    location: tuple[str | int, ...], origin: dict[tuple[str | int, ...], tuple[str | int, ...]]
) -> tuple[str | int, ...]:
    for cut in range(len(location), 0, -1):
        if location[:cut] in origin:
            return (*origin[location[:cut]], *location[cut:])
    return ("defaults", *location)


def _wording(error: Any) -> str:
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
        raise ConfigError(f"model configuration: {'.'.join(map(str, first['loc']))}: {_wording(first)}") from None
