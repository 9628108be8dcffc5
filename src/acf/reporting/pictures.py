"""Sample grids enlarged pixel by pixel, so that an 8x8 digit can be seen."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

TARGET = 512
"""Longer side, in pixels, that small grids are enlarged to or past."""


def enlarge(source: Path, target: Path) -> None:
    """Copy the PNG `source` to `target`, a small one scaled up by a whole number, nearest neighbour."""
    with Image.open(source) as image:
        factor = max(1, -(-TARGET // max(image.size)))
        size = (image.width * factor, image.height * factor)
        image.resize(size, Image.Resampling.NEAREST).save(target, optimize=True)
