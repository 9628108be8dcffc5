"""Training of one model: optimiser, moving average, checkpoints, the loop."""

from acf.training.stage import train

__all__ = ["train"]
