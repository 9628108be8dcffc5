"""A picture of the rows of a table and of samples: every column, and every pair of columns."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

MOST = 6
"""Columns that are pictured at most, the first ones."""
PANEL = 1.3
"""Side of one panel in inches."""
DATA, SAMPLES = "0.45", "tab:blue"


def pairs(data: Tensor, samples: Tensor, names: Sequence[str]) -> Image.Image:
    """Return a square of panels: pairs of columns of `data` below the diagonal, of `samples` above, both on it.

    A panel has the same frame above and below the diagonal, of all but the outermost thousandth of both, so that
    samples far away do not shrink the rest.

    Args:
        data: (N, D).
        samples: (M, D).
        names: of the D columns.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = min(len(names), MOST)
    rows, drawn = data[:, :count].numpy(), samples[:, :count].numpy()
    both = np.concatenate([rows, drawn])
    low, high = np.quantile(both, 0.001, axis=0), np.quantile(both, 0.999, axis=0)
    margin = 0.05 * np.where(high > low, high - low, 1)
    low, high = low - margin, high + margin
    figure = Figure(figsize=(PANEL * count + 0.8, PANEL * count + 0.8), dpi=120, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(count, count, squeeze=False)
    for i in range(count):
        for j in range(count):
            axes = panels[i, j]
            if i == j:
                _histograms(axes, rows[:, i], drawn[:, i], (low[i], high[i]))
            else:
                values, colour = (rows, DATA) if i > j else (drawn, SAMPLES)
                axes.plot(values[:, j], values[:, i], ".", markersize=1.5, color=colour)
                axes.set_ylim(low[i], high[i])
            axes.set_xlim(low[j], high[j])
            axes.tick_params(labelsize=5, length=2, labelbottom=i == count - 1, labelleft=j == 0 and i > 0)
            axes.label_outer()
    for j in range(count):
        panels[count - 1, j].set_xlabel(names[j], fontsize=7)
        panels[j, 0].set_ylabel(names[j], fontsize=7)
    figure.suptitle("test rows (grey, below) and samples (blue, above)", fontsize=8)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _histograms(axes: Any, rows: np.ndarray, drawn: np.ndarray, frame: tuple[float, float]) -> None:
    bins = np.linspace(*frame, 31)
    for values, style in ((rows, {"histtype": "stepfilled", "color": "0.8"}), (drawn, {"histtype": "step"})):
        if np.histogram(values, bins)[0].any():
            axes.hist(values, bins, density=True, **{"color": SAMPLES, **style})
    axes.set_yticks([])
