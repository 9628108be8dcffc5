"""Settings of a model as `acf.build` takes them: its architecture, the form of its data, its estimators."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from acf.errors import InputError
from acf.settings.architecture_config import ModelParams
from acf.settings.log_det_config import EvaluationLogDetConfig, TrainingLogDetConfig
from acf.settings.section import MOST_EXACT, Levels, Positive, Section, Several


class ConditionConfig(Section):
    """What a conditional density p(x | c) depends on: one of `classes` labels, or a vector of `size` values.

    Between contractive blocks values are scaled and shifted by functions of c. The blocks themselves do not see c, so
    that the proof of contraction holds for every c.
    """

    classes: Positive | None = Field(default=None, description="Number of labels, where c is a label from 0 on.")
    size: Positive | None = Field(default=None, description="Number of values of c, where c is a vector.")
    width: Positive = Field(
        default=64,
        description="Number of features that c is turned into. The default is this project's choice.",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.classes is not None and self.size is not None:
            raise ValueError("c is either one of `classes` labels or a vector of `size` values, not both")
        return self

    @property
    def is_given(self) -> bool:
        """Whether the density depends on anything."""
        return self.classes is not None or self.size is not None


class ModelConfig(ModelParams):
    """Everything `acf.build` needs: the architecture, the data's form, the estimators."""

    shape: tuple[Positive, ...] = Field(
        strict=False,
        description="Channels, height and width of an image, the latter two in pixels, or, alone, the number of values "
        "of a vector; a property of the data set.",
    )
    levels: Levels | None = Field(
        default=256,
        description="Number of grey levels of an image, `null` for vectors of real numbers; a property of the data "
        "set.",
    )
    classes: Several | None = Field(
        default=None,
        description="Number of classes that classification heads tell apart, a property of the data set; null for a "
        "flow without heads.",
    )
    condition: ConditionConfig = Field(
        default=ConditionConfig(), description="What the density depends on, p(x | c) instead of p(x)."
    )
    training_log_det: TrainingLogDetConfig = Field(
        default=TrainingLogDetConfig(),
        description="Estimator of log-determinants in training mode (arXiv 1906.02735, sections 3.1 and 3.2).",
    )
    evaluation_log_det: EvaluationLogDetConfig = Field(
        default=EvaluationLogDetConfig(),
        description="Estimator of log-determinants in evaluation mode (arXiv 1906.02735, section 3.1, and ours).",
    )

    @model_validator(mode="before")
    @classmethod
    def _no_levels_of_vectors(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and "levels" not in data:
            shape = data.get("shape")
            if isinstance(shape, list | tuple) and len(shape) == 1:
                return {**data, "levels": None}
        return data

    @field_validator("shape")
    @classmethod
    def _image_or_vector(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(value) not in (1, 3):
            raise ValueError("must be (C, H, W) of an image or (D,) of a vector")
        return value

    @property
    def is_of_images(self) -> bool:
        """Whether x is an image (C, H, W) in [0, 1) and not a vector (D,) of real numbers."""
        return len(self.shape) == 3

    @property
    def unit(self) -> str:
        """What samples are called, "images" or "rows"."""
        return "images" if self.is_of_images else "rows"

    @property
    def grey_levels(self) -> int:
        """Number of grey levels of images.

        Raises:
            InputError: the flow is on vectors, which have none.
        """
        if self.levels is None:
            raise InputError("this is for flows on images; vectors of real numbers have no grey levels")
        return self.levels

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the map that enters the first scale; a vector is a map of D channels at one position."""
        channels, height, width = self.shape if self.is_of_images else (*self.shape, 1, 1)
        return channels, height, width

    @model_validator(mode="after")
    def _fits_vectors(self) -> Self:
        if self.is_of_images != (self.levels is not None):
            raise ValueError(
                f"images have grey levels and vectors have none, but shape is {self.shape} and levels {self.levels}"
            )
        if not self.is_of_images and len(self.blocks) > 1:
            raise ValueError(f"a flow on vectors has one scale, so blocks has one entry (got {self.blocks})")
        if not self.is_of_images and self.attention.kind != "none":
            raise ValueError("attention is among the positions of a map, and vectors have none: set its kind to none")
        return self

    @model_validator(mode="after")
    def _few_values_if_exact(self) -> Self:
        exact = "exact" in (self.training_log_det.estimator, self.evaluation_log_det.estimator)
        if exact and math.prod(self.shape) > MOST_EXACT:
            raise ValueError(
                f"exact log-determinants are for at most {MOST_EXACT} values, and shape {self.shape} has "
                f"{math.prod(self.shape)}: use the estimator series"
            )
        return self
