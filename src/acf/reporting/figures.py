"""The figures of a report as the content of PNG files, in a size that is legible on a phone."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import pandas as pd
from PIL import Image, UnidentifiedImageError

from acf.reporting.results import Results
from acf.reporting.style import BASELINE_COLOUR, draw_figure, looks
from acf.reporting.wording import with_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPAN = 20
"""Rows of history.csv over which training bits/dim is smoothed (exponential moving average)."""
TARGET = 512
"""Longer side, in pixels, that small grids are enlarged to or past."""


def _figure(height: float, draw: Callable[[Axes], None]) -> bytes:
    return draw_figure("figure", "", "", height, draw).png


def _looks(results: Results) -> dict[str, tuple[tuple[float, float, float], str]]:
    return looks(list(results.metrics))


def curves(results: Results, axis: str, label: str) -> bytes:
    """Draw bits/dim in training against the column `axis` of the histories, one colour per variant.

    The frame is fitted to the later steps and the baseline of the gains; the first steps may lie above it.
    """

    def draw(axes: Axes) -> None:
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

    return _figure(3.6, draw)


def ranking(table: pd.DataFrame, results: Results) -> bytes:
    """Draw bits/dim with its standard error for all rows, the best on top."""
    looks = _looks(results)
    table = table.sort_values("bits_per_dim", ascending=False)

    def draw(axes: Axes) -> None:
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

    return _figure(0.8 + 0.42 * len(table), draw)


def bounds(results: Results) -> bytes:
    """Draw the proven Lipschitz bound of every block of every flow, in the order of the blocks."""

    def draw(axes: Axes) -> None:
        for place, (variant, (colour, marker)) in enumerate(_looks(results).items()):
            aside = 0.12 * (place - (len(results.metrics) - 1) / 2)
            for number, metrics in enumerate(results.metrics[variant]):
                upper = [block.upper for block in metrics.certificate.blocks]
                label = variant if number == 0 else None
                numbers = [block + 1 + aside for block in range(len(upper))]
                axes.plot(numbers, upper, color=colour, marker=marker, markersize=4, lw=0.6, label=label)
        axes.axhline(1, color="black", lw=1.2)
        axes.annotate("1: no longer provably invertible", (1, 1), (0, 3), textcoords="offset points", fontsize="small")
        axes.locator_params(axis="x", integer=True)
        low, high = axes.get_ylim()
        axes.set(xlabel="block", ylabel="proven bound of the branch", ylim=(low, high + 0.08 * (high - low)))

    return _figure(3.2, draw)


def enlarge(content: bytes) -> bytes:
    """Return the PNG file `content`, a small one scaled up by a whole number, nearest neighbour.

    Raises:
        ValueError: it is damaged or no PNG file.
    """
    enlarged = io.BytesIO()
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            image.verify()  # its checksums, which reading the pixels does not look at
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            factor = max(1, -(-TARGET // max(image.size)))
            size = (image.width * factor, image.height * factor)
            image.resize(size, Image.Resampling.NEAREST).save(enlarged, format="PNG", optimize=True)
    except Exception as error:  # damage lets the reader fail in any way
        reason = "no PNG file" if isinstance(error, UnidentifiedImageError) else f"{type(error).__name__}: {error}"
        raise ValueError(reason.partition("\n")[0]) from None
    return enlarged.getvalue()
