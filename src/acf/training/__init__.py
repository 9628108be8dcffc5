"""Training of one model: optimiser, moving average, checkpoints, the loop."""
