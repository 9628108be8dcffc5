"""How all figures look: one colour, marker and line per variant, one size, whatever matplotlibrc a person has."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from acf.reporting.page_parts import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PALETTE = (
    *("#4503bc", "#19a0ae", "#ff477a", "#737f00", "#b51c78"),
    *("#ad74ff", "#5f5500", "#7903ff", "#69002a", "#4b1071"),
    "#000000",
)
"""Colours with a contrast of at least 3 to white, as far apart as such colours can be for eyes of all kinds."""
MARKERS = "osD^vPX*<>"
DASHES = ((), (5, 1.5), (1, 1), (5, 1.5, 1, 1.5), (8, 1, 2, 1))
"""Lengths of dashes and gaps, in widths of the line; the first line is solid."""
BASELINE_COLOUR = "0.45"
WIDTH = 4.6  # inches
LEGEND_LINE = 0.2  # inches


class Look(NamedTuple):
    """How a variant is drawn, in every figure of every experiment; markers and lines tell variants apart in grey."""

    colour: str
    marker: str
    dashes: tuple[float, ...]

    @property
    def line(self) -> dict[str, Any]:
        """Arguments of `Axes.plot` for a line without markers."""
        return {"color": self.colour, "linestyle": (0, self.dashes) if self.dashes else "-"}

    @property
    def points(self) -> dict[str, Any]:
        """Arguments of `Axes.plot` for markers; white edges keep those that overlap apart."""
        return {"color": self.colour, "marker": self.marker, "markeredgecolor": "white", "markeredgewidth": 0.5}

    @property
    def marked_line(self) -> dict[str, Any]:
        """Arguments of `Axes.plot` for a line with markers."""
        return self.line | self.points


Looks: TypeAlias = Mapping[str, Look]
"""Per variant."""


def looks(variants: Sequence[str]) -> dict[str, Look]:
    """Return how each variant is drawn.

    Args:
        variants: all keys under `variants` in params.yaml, whichever an experiment has, so that a variant looks the
            same in all reports. Looks stay what they are if variants are added at the end.
    """
    return {name: _look(place) for place, name in enumerate(variants)}


def _look(place: int) -> Look:
    turn = place // len(MARKERS)  # other combinations for more variants than markers
    return Look(
        PALETTE[place % len(PALETTE)], MARKERS[(place + 2 * turn) % len(MARKERS)], DASHES[(place + turn) % len(DASHES)]
    )


@cache
def seaborn_module() -> Any:
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


def draw_figure(name: str, alt: str, caption: str, height: float, draw: Callable[[Axes], None]) -> Figure:
    """Return the figure of what `draw` draws, as PNG and as SVG with text that is text.

    `height` is in inches, for the axes and the first two lines of the legend; more lines make the figure higher.

    The ground is white: figures go into papers, and a page shows the same figure as its files in light and dark.
    """
    sns = seaborn_module()
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
            figure.set_figheight(height + LEGEND_LINE * max(0, -(-len(labels) // columns) - 2))
            figure.legend(loc="outside upper center", ncols=columns, fontsize="small", frameon=False)
        for kind, fields in {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}.items():
            content = io.BytesIO()
            figure.savefig(content, format=kind, dpi=200, metadata=fields)
            contents[kind] = content.getvalue()
            figure.set_layout_engine("none")  # what has been laid out once stays where it is
    return Figure(name, alt, caption, contents["png"], contents["svg"])
