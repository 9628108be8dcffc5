"""Settings of models so small that their exact Jacobians can be computed."""

from typing import Any

from acf.settings.config import ModelConfig

SMALL: dict[str, Any] = {
    "blocks": [1],
    "idim": 4,
    "fc_blocks": 1,
    "fc_width": 5,
    "dense": {"depth": 2, "growth": 4},
    "evaluation_log_det": {"exact_terms": 10},
}


def model_config(shape: tuple[int, ...], **settings: Any) -> ModelConfig:
    """The small configuration, with the settings given in place of its own."""
    return ModelConfig.model_validate({"shape": shape} | SMALL | settings)


def with_attention(kind: str, heads: int = 2, join: str = "convex", **settings: Any) -> dict[str, Any]:
    """The setting `attention` of a model, to be passed on as a keyword argument."""
    return {"attention": {"kind": kind, "heads": heads, "join": join, **settings}}
