"""The figures of a report, in a size that is legible on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from acf.reporting.results import Results
from acf.reporting.wording import with_error

MARKERS = "osD^vPX*"
SPAN = 20
"""Rows of history.csv over which training bits/dim is smoothed (exponential moving average)."""
BASELINE_COLOUR = "0.45"


WIDTH = 4.6  # inches
TARGET = 512
"""Longer side, in pixels, that small grids are enlarged to or past."""


@contextmanager
def _figure(path: Path, height: float) -> Iterator[Axes]:
    style = sns.axes_style("whitegrid") | sns.plotting_context("notebook", font_scale=0.9)
    with rc_context(style):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots()
        yield axes
        sns.despine(fig=figure)
        if labels := axes.get_legend_handles_labels()[1]:
            # Inches of a marker with its margins, and of a letter at this size.
            columns = max(1, min(4, int(WIDTH / (0.55 + 0.075 * max(map(len, labels))))))
            figure.legend(loc="outside upper center", ncols=columns, fontsize="small", frameon=False)
        figure.savefig(path, dpi=200, metadata={"Software": None})


def _looks(results: Results) -> dict[str, tuple[tuple[float, float, float], str]]:
    palette = sns.color_palette("colorblind", len(results.metrics))
    return {v: (palette[i], MARKERS[i % len(MARKERS)]) for i, v in enumerate(results.metrics)}


def curves(results: Results, axis: str, label: str, path: Path) -> None:
    """Draw bits/dim in training against the column `axis` of the histories, one colour per variant.

    The frame is fitted to the later steps and the baseline of the gains; the first steps may lie above it.
    """
    with _figure(path, 3.6) as axes:
        seen = []
        for variant, (colour, marker) in _looks(results).items():
            for number, history in enumerate(results.histories[variant]):
                smooth = history["train_bits_per_dim"].ewm(span=SPAN).mean()
                axes.plot(history[axis], smooth, color=colour, lw=0.9, alpha=0.55)
                checked = history.dropna(subset=["validation_bits_per_dim"])
                axes.errorbar(
                    checked[axis],
                    checked["validation_bits_per_dim"],
                    yerr=checked["validation_se"],
                    color=colour,
                    marker=marker,
                    markersize=4.5,
                    lw=0,
                    elinewidth=1.2,
                    label=variant if number == 0 else None,
                )
                seen += [smooth.iloc[len(smooth) // 4 :], checked["validation_bits_per_dim"].iloc[1:]]
        reference = results.baselines.baselines[results.reference].bits_per_dim
        axes.axhline(reference, color=BASELINE_COLOUR, ls="--", lw=1.2, label=f"{results.reference}, test")
        shown = pd.concat([*seen, pd.Series([reference])])
        margin = 0.06 * (shown.max() - shown.min())
        axes.set(xlabel=label, ylabel="bits/dim", ylim=(shown.min() - margin, shown.max() + margin))
        axes.set_xlim(left=0)


def ranking(table: pd.DataFrame, results: Results, path: Path) -> None:
    """Draw bits/dim with its standard error for all rows, the best on top."""
    looks = _looks(results)
    table = table.sort_values("bits_per_dim", ascending=False)
    with _figure(path, 0.8 + 0.42 * len(table)) as axes:
        for height, (_, row) in enumerate(table.iterrows()):
            colour, marker = looks.get(row["row"], (BASELINE_COLOUR, "o"))
            value, error = row["bits_per_dim"], row["bits_per_dim_se"]
            axes.errorbar(value, height, xerr=error, color=colour, marker=marker, markersize=7, capsize=4)
            label = with_error(value, error)
            axes.annotate(label, (value, height), (0, 6), textcoords="offset points", ha="center", fontsize="small")
        axes.set_yticks(range(len(table)), list(table["row"]))
        axes.set(xlabel="bits/dim on test images (lower is better)", ylim=(-0.5, len(table) - 0.3))
        axes.margins(x=0.2)
        axes.grid(visible=False, axis="x")


def bounds(results: Results, path: Path) -> None:
    """Draw the proven Lipschitz bound of every block of every flow, in the order of the blocks."""
    with _figure(path, 3.2) as axes:
        for place, (variant, (colour, marker)) in enumerate(_looks(results).items()):
            aside = 0.12 * (place - (len(results.metrics) - 1) / 2)
            for number, metrics in enumerate(results.metrics[variant]):
                upper = [block.upper for block in metrics.certificate.blocks]
                label = variant if number == 0 else None
                numbers = [block + 1 + aside for block in range(len(upper))]
                axes.plot(numbers, upper, color=colour, marker=marker, markersize=4, lw=0.6, label=label)
        axes.axhline(1, color="black", lw=1.2)
        axes.annotate("1: no longer provably invertible", (1, 1), (0, 3), textcoords="offset points", fontsize="small")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        low, high = axes.get_ylim()
        axes.set(xlabel="block", ylabel="proven bound of the branch", ylim=(low, high + 0.08 * (high - low)))


def enlarge(source: Path, target: Path) -> None:
    """Copy the PNG `source` to `target`, a small one scaled up by a whole number, nearest neighbour."""
    with Image.open(source) as image:
        factor = max(1, -(-TARGET // max(image.size)))
        size = (image.width * factor, image.height * factor)
        image.resize(size, Image.Resampling.NEAREST).save(target, optimize=True)
