"""The report's section on where attention looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from acf.reporting.attention_measures import ENTROPY
from acf.reporting.findings_file import Measure
from acf.reporting.page_parts import Analysed, AnalysisPart, Figure, Section, Table
from acf.reporting.schemas import Count, NotNegative, Stored
from acf.reporting.style import WIDTH, Looks, draw_figure
from acf.reporting.wording import ABSENT, decimal, with_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EVEN, SELECTIVE, LOCAL, ALONE = 0.99, 0.9, 0.9, 0.01
"""Shares of the entropy and the distance of even weights from which, or below which, a head is called so."""
SMALLEST = 0.0001
"""Standard errors below it are not written out."""
SHOWN_HEADS = 4
MARK = "#d55e00"
LABELS = 1.9
"""Width of the labels of maps, in maps."""


class Head(Stored):
    """Means over images and queries, with standard errors over images."""

    distance: NotNegative
    distance_se: NotNegative | None
    entropy: NotNegative
    entropy_se: NotNegative | None


class Block(Stored):
    """The attention of one block; `maps` are weights per image, head and query, none where they are not shown."""

    name: str
    height: PositiveInt
    width: PositiveInt
    even_distance: NotNegative
    even_entropy: NotNegative
    heads: list[Head] = Field(min_length=1)
    queries: list[list[Count]] = Field(min_length=1)
    maps: list[list[list[list[list[NotNegative]]]]]

    @model_validator(mode="after")
    def _regular(self) -> Self:
        if any(len(query) != 2 for query in self.queries):
            raise ValueError("a query is not a row and a column")
        if self.maps:
            shape = np.array(self.maps).shape  # a ValueError where the lists are of unequal length
            if shape[1:3] != (len(self.heads), len(self.queries)) or 0 in shape:
                raise ValueError(f"maps of shape {shape} for {len(self.heads)} heads and {len(self.queries)} queries")
        return self


class Attention(Stored):
    """What the analysis found of one model."""

    images: PositiveInt
    pictures: list[list[list[list[Count]]]]
    blocks: list[Block]
    not_available: list[str]

    @model_validator(mode="after")
    def _regular(self) -> Self:
        shown = {len(block.maps) for block in self.blocks if block.maps}
        if len(shown | {len(self.pictures)}) > 1 and shown:
            raise ValueError("there are not as many pictures as images with maps")
        for picture in self.pictures:
            if np.array(picture).ndim != 3:
                raise ValueError("a picture is not of channels, rows and columns")
        return self


def section_of(analysed: Analysed[Attention], bases: Mapping[str, str | None], looks: Looks) -> Section:
    """Return what was found of each variant with attention: sentences, a table by block and head, curves and maps."""
    found = {variant: models[0].found for variant, models in analysed.items() if models}
    attending = {variant: it for variant, it in found.items() if it.blocks or it.not_available}
    without = [variant for variant in found if variant not in attending]
    sentences = [_sentence(variant, it) for variant, it in attending.items()]
    if without:
        sentences.append(f"{', '.join(without)} {'has' if len(without) == 1 else 'have'} no attention.")
    known = {variant: it for variant, it in attending.items() if it.blocks}
    if not known:
        return Section("attention", "Attention", sentences)
    curves = [
        _curve(known, looks, "distance", _relative_distance),
        _curve(known, looks, "entropy", _relative_entropy),
    ]
    maps = [_maps(variant, it) for variant, it in known.items() if any(block.maps for block in it.blocks)]
    measures = [
        Measure(name=ENTROPY, variant=variant, value=fmean(entropies))
        for variant, it in known.items()
        if (entropies := _entropies(it))
    ]
    figures = [*curves, *maps]
    return Section("attention", "Attention", sentences, [_table(known)], figures, _notes(known), measures=measures)


def _relative_distance(block: Block, head: Head) -> float | None:
    return head.distance / block.even_distance if block.even_distance > 0 else None


def _relative_entropy(block: Block, head: Head) -> float | None:
    return head.entropy / block.even_entropy if block.even_entropy > 0 else None


def _heads(found: Attention) -> Iterator[tuple[Block, Head]]:
    return ((block, head) for block in found.blocks for head in block.heads)


def _entropies(found: Attention) -> list[float]:
    return [value for pair in _heads(found) if (value := _relative_entropy(*pair)) is not None]


def _sentence(variant: str, found: Attention) -> str:
    unknown = f" The weights of {', '.join(found.not_available)} are not available: the attention does not say them."
    unknown = unknown if found.not_available else ""
    distances = [value for pair in _heads(found) if (value := _relative_distance(*pair)) is not None]
    entropies = _entropies(found)
    if not entropies:
        return f"{variant}: attention has one position only, or its weights are not available.{unknown}"
    heads = len(entropies)
    counts = {
        "close to a mean over tokens": sum(value >= EVEN for value in entropies),
        "selective": sum(value < SELECTIVE for value in entropies),
        "local": sum(value < LOCAL for value in distances),
        "on the query's position alone": sum(value < ALONE for value in distances),
    }
    kinds = [f"{'all' if number == heads else number} {what}" for what, number in counts.items() if number]
    return (
        f"{variant}: of {heads} heads in {len(found.blocks)} blocks "
        f"{', '.join(kinds) or 'none is close to a mean, selective or local'}; mean distance {_range(distances)} and "
        f"entropy {_range(entropies)} of what even weights have.{unknown}"
    )


def _range(values: list[float]) -> str:
    low, high = (f"{100 * value:.1f} %" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _table(found: Mapping[str, Attention]) -> Table:
    rows = [
        [
            *(variant, block.name, f"{block.height} x {block.width}", str(number)),
            _measured(head.distance, head.distance_se),
            _share(_relative_distance(block, head)),
            _measured(head.entropy, head.entropy_se),
            _share(_relative_entropy(block, head)),
        ]
        for variant, it in found.items()
        for block in it.blocks
        for number, head in enumerate(block.heads, 1)
    ]
    headings = ["model", "block", "map", "head", "distance", "of even weights'", "entropy", "of even weights'"]
    caption = "Mean attention distance (positions of the map) and entropy (nats) of every head"
    return Table(headings, rows, caption, left=3, folded=True)


def _measured(value: float, error: float | None) -> str:
    """Return value ± error with four decimals at most: weights on one token leave distances of 1e-12."""
    if error is None:
        return f"{decimal(value, 4)} ± {ABSENT}"
    return with_error(value, error) if error >= SMALLEST else f"{decimal(value, 4)} ± < {SMALLEST}"


def _share(value: float | None) -> str:
    return ABSENT if value is None else f"{decimal(100 * value, 1)} %"


def _curve(
    found: Mapping[str, Attention],
    looks: Looks,
    what: str,
    relative: Callable[[Block, Head], float | None],
) -> Figure:
    def draw(axes: Axes) -> None:
        for variant, it in found.items():
            means = [
                (number, fmean(values))
                for number, block in enumerate(it.blocks, 1)
                if (values := [v for head in block.heads if (v := relative(block, head)) is not None])
            ]
            look = looks[variant]
            axes.plot([n for n, _ in means], [mean for _, mean in means], label=variant, **look.marked_line)
        axes.axhline(1, color="0.5", lw=1)
        axes.set(xlabel="block with attention, in the order of the flow", ylabel=f"{what} / that of even weights")
        axes.set_ylim(bottom=-0.04)  # a head on one position has 0
        axes.locator_params(axis="x", integer=True)

    return draw_figure(
        f"attention-{what}",
        f"{what} of attention over that of even weights, by block, mean over heads",
        f"Mean attention {what} relative to even weights (1), mean over heads.",
        3.4,
        draw,
    )


def _maps(variant: str, found: Attention) -> Figure:
    blocks = [block for block in found.blocks if block.maps]
    rows = [(block, head) for block in blocks for head in range(min(len(block.heads), SHOWN_HEADS))]
    columns = [(image, query) for image in range(len(found.pictures)) for query in range(len(blocks[0].queries))]

    def draw(axes: Axes) -> None:
        for x, (image, query) in enumerate(columns):
            picture = np.array(found.pictures[image]).transpose(1, 2, 0) / 255
            picture = picture if picture.shape[2] == 3 else picture.mean(2)
            _show(axes, x, 0, picture, blocks[0], query, "gray", 1)
        for y, (block, head) in enumerate(rows, 1):
            weights = np.array(block.maps)[:, head]
            for x, (image, query) in enumerate(columns):
                _show(axes, x, y, weights[image, query], block, query, "viridis", weights.max())
            label = f"{block.name}\nhead {head + 1}, ≤ {weights.max():.2g}"
            axes.text(-0.1, y + 0.5, label, ha="right", va="center", fontsize=5.5)
        axes.set(xlim=(-LABELS, len(columns)), ylim=(len(rows) + 1, 0))
        axes.set_axis_off()

    side = WIDTH / (len(columns) + LABELS)
    return draw_figure(
        f"attention-maps-{variant}",
        f"weights of attention of {variant} over test images, for marked positions",
        f"{variant}: test images with query positions, and the weights of these queries by block and head, from 0 "
        "(dark) to the largest of each row.",
        side * (len(rows) + 1),
        draw,
    )


def _show(axes: Axes, x: int, y: int, values: Any, block: Block, query: int, colours: str, largest: float) -> None:
    """Draw values (H, W) in the square at x, y, and mark the position of the query."""
    from matplotlib.patches import Rectangle

    edge, span = 0.04, 0.92
    box = (x + edge, x + edge + span, y + edge + span, y + edge)
    axes.imshow(values, cmap=colours, vmin=0, vmax=max(largest, 1e-12), extent=box, aspect="auto")
    row, column = block.queries[query]
    corner = (x + edge + span * column / block.width, y + edge + span * row / block.height)
    size = (span * max(1 / block.width, 1 / 16), span * max(1 / block.height, 1 / 16))
    axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=MARK, lw=0.8))


def _notes(found: Mapping[str, Attention]) -> list[str]:
    images = sorted({it.images for it in found.values()})
    return [
        f"First seed, {' or '.join(map(str, images))} test images; standard errors are over images. The weights "
        "are those that the attention uses at the maps which it is given on the way of the images through the flow.",
        "Distance: mean over queries of the distances of all positions from the query, weighted; entropy: mean over "
        "queries of that of the weights. Even weights 1 / N are a mean over all N positions.",
        f"Close to a mean over tokens: entropy of at least {100 * EVEN:.0f} % of log N. Selective: below "
        f"{100 * SELECTIVE:.0f} %. Local: distance below {100 * LOCAL:.0f} % of that of even weights; below "
        f"{100 * ALONE:.0f} % a query looks at its own position alone.",
        f"Of every block shown the first {SHOWN_HEADS} heads are drawn; maps with sides above 16 are summed over "
        "squares.",
    ]


section = AnalysisPart(Attention, section_of)
