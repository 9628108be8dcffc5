"""Measuring trained models: likelihood, reconstruction, certificate, audit, baselines, pictures."""

from acf.evaluation.audit_stage import audit_models
from acf.evaluation.baselines import evaluate_baselines
from acf.evaluation.likelihood import bits_per_dim
from acf.evaluation.pictures import draw_pictures
from acf.evaluation.stage import evaluate

__all__ = ["audit_models", "bits_per_dim", "draw_pictures", "evaluate", "evaluate_baselines"]
