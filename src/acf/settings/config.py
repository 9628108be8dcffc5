"""The one schema of settings: the sections of `params.yaml` and a stored model's `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError

from acf.errors import ConfigError, dotted, shown
from acf.settings.analysis_config import AnalysesConfig
from acf.settings.architecture_config import AttentionConfig, DenseConfig, ModelParams
from acf.settings.dataset_config import DatasetConfig
from acf.settings.evaluation_config import EvaluationConfig, SamplingConfig
from acf.settings.log_det_config import EvaluationLogDetConfig, LogDetConfig, TrainingLogDetConfig
from acf.settings.model_config import ConditionConfig, ModelConfig
from acf.settings.reporting_config import ReportingConfig
from acf.settings.section import SEEDS, Section
from acf.settings.training_config import MuonConfig, TaskConfig, TrainingConfig

__all__ = [
    "SEEDS",
    "AnalysesConfig",
    "AttentionConfig",
    "ConditionConfig",
    "DatasetConfig",
    "DenseConfig",
    "EvaluationConfig",
    "EvaluationLogDetConfig",
    "LogDetConfig",
    "ModelConfig",
    "ModelParams",
    "MuonConfig",
    "ReportingConfig",
    "RunConfig",
    "SamplingConfig",
    "Section",
    "TaskConfig",
    "TrainingConfig",
    "TrainingLogDetConfig",
    "model_config_from",
    "wording",
]


class RunConfig(Section):
    """All settings of one run, defaults and overrides merged."""

    model: ModelParams = Field(description="Architecture of the flow (arXiv 1906.02735 and 2109.12135).")
    training: TrainingConfig = Field(description="Optimisation (after the code published with arXiv 1906.02735).")
    evaluation: EvaluationConfig = Field(description="Measurements on test images (this project's choices).")
    sampling: SamplingConfig = Field(description="Pictures of samples and reconstructions (this project's choices).")
    analyses: AnalysesConfig = Field(description="What is looked at in trained models (this project's choices).")
    reporting: ReportingConfig = Field(description="What the report on an experiment compares.")


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
        place = ": ".join(filter(None, ["model configuration", dotted(first["loc"])]))
        raise ConfigError(f"{place}: {wording(first)}") from None
