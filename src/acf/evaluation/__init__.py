"""Measurements of trained models: likelihood, reconstruction, baselines, analyses, grids of images."""
