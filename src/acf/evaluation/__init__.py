"""Measuring trained models: likelihood, reconstruction, certificate, baselines, pictures."""

from acf.evaluation.baselines import evaluate_baselines
from acf.evaluation.likelihood import bits_per_dim
from acf.evaluation.pictures import draw_pictures
from acf.evaluation.stage import evaluate

__all__ = ["bits_per_dim", "draw_pictures", "evaluate", "evaluate_baselines"]
