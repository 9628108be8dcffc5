"""The figures of a report, in a size that is legible on a phone."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from acf.reporting.page_parts import Figure
from acf.reporting.results import Results
from acf.reporting.style import BASELINE_COLOUR, Looks, draw_figure
from acf.reporting.wording import with_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPAN = 20
"""Rows of history.csv over which training bits/dim is smoothed (exponential moving average)."""
POINTS = 400
"""Points of a curve that are drawn at most."""
TARGET = 512
"""Longer side, in pixels, that small grids are enlarged to or past."""


def curves(results: Results, looks: Looks, axis: str, label: str, caption: str) -> Figure:
    """Draw bits/dim in training against the column `axis` of the histories, one colour per variant.

    Of several seeds it shows means, with a band and bars from the lowest to the highest; of one seed the bars are
    standard errors. The frame is fitted to the later steps; the first ones may lie above it, and so may a baseline.
    Variants whose task does not measure bits/dim are left out.
    """
    measured = {
        variant: histories
        for variant, histories in results.histories.items()
        if any(history["train_bits_per_dim"].notna().any() for history in histories)
    }

    def draw(axes: Axes) -> None:
        seen = []
        for variant, histories in measured.items():
            look = looks[variant]
            smooth = over_seeds(histories, axis, lambda h: h["train_bits_per_dim"].ewm(span=SPAN).mean())
            drawn = smooth.iloc[np.linspace(0, len(smooth) - 1, min(POINTS, len(smooth))).round().astype(int)]
            axes.plot(drawn["at"], drawn["mean"], lw=0.9, alpha=0.7, **look.line)
            if len(histories) > 1:
                axes.fill_between(drawn["at"], drawn["low"], drawn["high"], color=look.colour, alpha=0.12, lw=0)
            checked = over_seeds(histories, axis, lambda h: h["validation_bits_per_dim"])
            # Of equal values the mean may be rounded to beyond them.
            ends = [(checked["mean"] - checked["low"]).clip(0), (checked["high"] - checked["mean"]).clip(0)]
            axes.errorbar(
                checked["at"],
                checked["mean"],
                yerr=ends if len(histories) > 1 else checked["error"],
                markersize=5,
                lw=0,
                elinewidth=1.2,
                ecolor=look.colour,
                label=variant,
                **look.points,
            )
            seen += [smooth["mean"].iloc[len(smooth) // 4 :], checked["mean"].iloc[1:]]
        shown = pd.concat(seen).dropna()
        margin = 0.06 * (shown.max() - shown.min()) or 0.01
        low, high = shown.min() - margin, shown.max() + margin
        reference = results.baselines.baselines[results.reference].bits_per_dim
        if low < reference < high:
            axes.axhline(reference, color=BASELINE_COLOUR, ls="--", lw=1.2, label=f"{results.reference}, test")
        axes.set(xlabel=label, ylabel="bits/dim", ylim=(low, high))
        axes.set_xlim(left=0)

    alt = f"bits/dim against {label}: {', '.join(measured)}"
    return draw_figure(f"curves-{axis.rstrip('s')}s", alt, caption, 3.6, draw)


def over_seeds(
    histories: Sequence[pd.DataFrame], axis: str, values: Callable[[pd.DataFrame], pd.Series[float]]
) -> pd.DataFrame:
    """Return what the histories of several seeds have at the steps where all of them have a value.

    Args:
        histories: of one variant, one per seed.
        axis: column of which `at` is the mean over the seeds.
        values: of a history, by its rows; NaN where there is none.

    Returns:
        Per step `at`, and `mean`, `low` and `high` of the values over the seeds; `error` is the mean `validation_se`.
    """
    columns = ["step", axis, "validation_se"]
    rows = pd.concat([history[list(dict.fromkeys(columns))].assign(value=values(history)) for history in histories])
    steps = rows.dropna(subset=["value"]).groupby("step")
    found = pd.DataFrame(
        {
            "at": steps[axis].mean(),
            "mean": steps["value"].mean(),
            "low": steps["value"].min(),
            "high": steps["value"].max(),
            "error": steps["validation_se"].mean(),
        }
    )
    return found[steps.size() == len(histories)]


def ranking(table: pd.DataFrame, results: Results, looks: Looks) -> Figure:
    """Draw bits/dim with its standard error for all rows, the best on top.

    The axis shows the flows and the best baseline; a row that lies beyond has its number at the edge, with an arrow.
    """
    table = table.sort_values("bits_per_dim", ascending=False)
    low, high = _frame(table, results)

    def draw(axes: Axes) -> None:
        axes.set_xlim(low, high)
        for height, (_, row) in enumerate(table.iterrows()):
            look = looks.get(row["row"])
            value, error = row["bits_per_dim"], row["bits_per_dim_se"]
            colour = look.colour if look else BASELINE_COLOUR
            if value > high:
                axes.annotate(
                    f"{with_error(value, error)} →",
                    (high, height),
                    (-4, 0),
                    textcoords="offset points",
                    ha="right",
                    va="center",
                    fontsize="small",
                    backgroundcolor="white",
                    color=BASELINE_COLOUR,
                )
                continue
            marker = look.marker if look else "o"
            axes.errorbar(value, height, xerr=error, color=colour, marker=marker, markersize=7, capsize=4)
            label = with_error(value, error)
            axes.annotate(label, (value, height), (0, 6), textcoords="offset points", ha="center", fontsize="small")
        axes.set_yticks(range(len(table)), list(table["row"]))
        axes.set(xlabel=f"bits/dim on test {results.unit} (lower is better)", ylim=(-0.5, len(table) - 0.3))
        axes.grid(visible=False, axis="x")

    beyond = list(table["row"][table["bits_per_dim"] > high])
    caption = "Test bits/dim ± one standard error, the best on top."
    if beyond:
        caption += f" Beyond the axis: {', '.join(beyond)}."
    each = (f"{row['row']} {with_error(row['bits_per_dim'], row['bits_per_dim_se'])}" for _, row in table.iterrows())
    alt = f"test bits/dim with standard errors: {', '.join(each)}"
    return draw_figure("ranking", alt, caption, 0.8 + 0.42 * len(table), draw)


def _frame(table: pd.DataFrame, results: Results) -> tuple[float, float]:
    """Return the limits of an axis that shows the flows that are trained for bits/dim and the best baseline.

    Where there is no such flow it shows all baselines.
    """
    flows, baselines = (table[table["kind"] == kind] for kind in ("flow", "baseline"))
    flows = flows[[results.is_trained_for_density(name) for name in flows["row"]]]
    shown = pd.concat([flows, baselines.nsmallest(1, "bits_per_dim")]) if len(flows) else baselines
    low = (shown["bits_per_dim"] - shown["bits_per_dim_se"]).min()
    high = (shown["bits_per_dim"] + shown["bits_per_dim_se"]).max()
    margin = 0.2 * (high - low) or 0.1
    return low - margin, high + margin


def bounds(results: Results, looks: Looks) -> Figure:
    """Draw the proven Lipschitz bound of every block of every flow, in the order of the blocks."""
    shown = {variant: runs for variant, runs in results.metrics.items() if runs}

    def draw(axes: Axes) -> None:
        for place, (variant, runs) in enumerate(shown.items()):
            aside = 0.5 * ((place + 0.5) / len(shown) - 0.5)
            seeds = [[block.upper for block in metrics.certificate.blocks] for metrics in runs]
            upper = [max(of_block) for of_block in zip_longest(*seeds, fillvalue=-math.inf)]  # of models of any depth
            numbers = [block + 1 + aside for block in range(len(upper))]
            axes.plot(numbers, upper, markersize=4.5, lw=0.6, label=variant, **looks[variant].marked_line)
        axes.axhline(1, color="black", lw=1.2)
        axes.annotate("1: no longer provably invertible", (1, 1), (0, 3), textcoords="offset points", fontsize="small")
        axes.locator_params(axis="x", integer=True)
        low, high = axes.get_ylim()
        axes.set(xlabel="block", ylabel="proven bound of the branch", ylim=(low, high + 0.08 * (high - low)))

    alt = f"proven Lipschitz bound of every block, all below 1: {', '.join(shown)}"
    caption = "Proven bound of every block, in the order of the flow, the largest over the training seeds."
    return draw_figure("bounds", alt, caption, 3.2, draw)


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
