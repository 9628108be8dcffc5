"""How all figures look: one colour and marker per variant, one size, the same whatever matplotlibrc a person has."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from acf.reporting.section import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "osD^vPX*"
BASELINE_COLOUR = "0.45"
WIDTH = 4.6  # inches


@cache
def _seaborn() -> Any:
    """Return seaborn, imported when something is drawn.

    matplotlib reads MPLBACKEND when it is imported, and ends on a value it does not know, such as the one that a
    notebook leaves to its children. Figures made here are files, which need no backend.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import seaborn

        return seaborn
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


def looks(variants: Sequence[str]) -> dict[str, tuple[tuple[float, float, float], str]]:
    """Return the colour and the marker of each variant, in every figure of an experiment."""
    palette = _seaborn().color_palette("colorblind", len(variants))
    return {variant: (palette[i], MARKERS[i % len(MARKERS)]) for i, variant in enumerate(variants)}


def draw_figure(name: str, alt: str, caption: str, height: float, draw: Callable[[Axes], None]) -> Figure:
    """Return the figure of what `draw` draws on axes of `height` inches."""
    sns = _seaborn()
    from matplotlib import style
    from matplotlib.figure import Figure as Canvas

    whitegrid = sns.axes_style("whitegrid") | sns.plotting_context("notebook", font_scale=0.9)
    fixed = {"svg.hashsalt": name, "svg.fonttype": "none"}
    contents = {}
    with style.context(["default", whitegrid, fixed]):
        figure = Canvas(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        sns.despine(fig=figure)
        if labels := axes.get_legend_handles_labels()[1]:
            # Inches of a marker with its margins, and of a letter at this size.
            columns = max(1, min(4, int(WIDTH / (0.55 + 0.075 * max(map(len, labels))))))
            figure.legend(loc="outside upper center", ncols=columns, fontsize="small", frameon=False)
        for kind, fields in {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}.items():
            content = io.BytesIO()
            figure.savefig(content, format=kind, dpi=200, metadata=fields)
            contents[kind] = content.getvalue()
    return Figure(name, alt, caption, contents["png"], contents["svg"])
