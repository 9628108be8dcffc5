"""Measurements of trained models: likelihood, reconstruction, audit, baselines, grids of images."""
