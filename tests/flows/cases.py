"""Small residual blocks in float64 for the statistical tests."""

from typing import Any

from torch import nn

from acf.config import EvaluationLogDetConfig, ModelConfig, TrainingLogDetConfig
from acf.flows.residual import ResidualBlock
from acf.lipschitz.branch import Shape, conv_branch, fc_branch
from acf.lipschitz.normalised import Normalised


def config(shape: Shape, **settings: Any) -> ModelConfig:
    small = {"blocks": [1], "idim": 6, "fc_width": 5, "fc_blocks": 1, "attention": {"kind": "none", "heads": 2}}
    return ModelConfig.model_validate({"shape": shape} | small | settings)


def strengthen(module: nn.Module, factor: float = 4.0) -> None:
    """Make every normalised map reach its coefficient, so that terms of all orders of the series count."""
    for part in module.modules():
        if isinstance(part, Normalised):
            part.weight.data.mul_(factor)
            part.converge_norm(1e-12)


def residual(shape: Shape, dense: bool = False, **settings: Any) -> ResidualBlock:
    c = config(shape, **settings)
    branch = fc_branch(c, shape) if dense else conv_branch(c, shape, True)
    return ResidualBlock(branch, shape, TrainingLogDetConfig(), EvaluationLogDetConfig()).double()


def attention(kind: str, heads: int = 2) -> dict[str, Any]:
    return {"kind": kind, "heads": heads}
