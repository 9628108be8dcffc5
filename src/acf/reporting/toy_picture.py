"""The picture of a toy: data, the model's density and its samples, side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from acf.reporting.style import seaborn_module

SHOWN_HALF_WIDTH = 4.5
BINS = 100
INCHES, DOTS = 2.4, 100
"""Side of a panel, and dots per inch."""
COLOURS = 128
"""Of the file, which is half as large as with all of them."""


class Row(NamedTuple):
    """Panels of one density.

    Attributes:
        name: above the row, or empty.
        data: points (n, 2).
        density: (side, side) on the square of half side `half_width`, first coordinate first.
        samples: points (n, 2).
        half_width: of the density's square.
    """

    name: str
    data: np.ndarray
    density: np.ndarray
    samples: np.ndarray
    half_width: float


def toy_picture(rows: Sequence[Row]) -> bytes:
    """Return a PNG file with one row of panels each; points are shown by how many fall into each of 100 x 100 bins."""
    seaborn_module()  # before matplotlib
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default"]):
        figure = Figure(figsize=(3 * INCHES, len(rows) * INCHES + 0.3), dpi=DOTS, layout="constrained")
        panels = figure.subplots(len(rows), 3, squeeze=False)
        for axes, row in zip(panels, rows, strict=True):
            view = 2 * [[-SHOWN_HALF_WIDTH, SHOWN_HALF_WIDTH]]
            counts = [
                np.histogram2d(points[:, 0], points[:, 1], bins=BINS, range=view)[0]
                for points in (row.data, row.samples)
            ]
            seen, whole = 2 * view[0], 2 * [-row.half_width, row.half_width]
            for panel, values, extent in zip(
                axes, (counts[0], row.density, counts[1]), (seen, whole, seen), strict=True
            ):
                panel.imshow(values.T, origin="lower", extent=extent, cmap="viridis", interpolation="bilinear")
                panel.set(xlim=view[0], ylim=view[1], xticks=[], yticks=[])
            axes[0].set_ylabel(row.name)
        for panel, title in zip(panels[0], ("data", "density of the flow", "samples of the flow"), strict=True):
            panel.set_title(title, fontsize="medium")
        drawn, content = io.BytesIO(), io.BytesIO()
        figure.savefig(drawn, format="png")
    Image.open(drawn).convert("RGB").quantize(COLOURS).save(content, format="png", optimize=True)
    return content.getvalue()
