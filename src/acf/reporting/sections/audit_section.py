"""The report's section on proven bounds against what an attack finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from pydantic import Field, PositiveInt

from acf.reporting.attention_measures import DEPENDENCE, USE, USE_OF_OTHERS, WEIGHT
from acf.reporting.findings_file import Measure
from acf.reporting.page_parts import Analysed, AnalysedModel, AnalysisPart, Figure, Section, Table
from acf.reporting.schemas import NotNegative, Number, Stored
from acf.reporting.style import Looks, draw_figure
from acf.reporting.wording import ABSENT, bound, count, decimal

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class AuditedBlock(Stored):
    """One block; what is found may exceed the bound, which refutes it, but has to be a number."""

    name: str
    tokens: PositiveInt
    upper: NotNegative
    local: NotNegative
    found: NotNegative
    ratio: NotNegative
    attention: str | None
    share: Number | None
    weight: Number | None
    dependence: Number | None


class Audit(Stored):
    """What the analysis found of one model."""

    images: PositiveInt
    blocks: list[AuditedBlock] = Field(min_length=1)


Models = Mapping[str, Sequence[AuditedBlock]]


def section_of(analysed: Analysed[Audit], bases: Mapping[str, str | None], looks: Looks) -> Section:
    """Return whether a bound is refuted, how close what was found comes to the bounds, and what attention does."""
    models = {variant: models[0] for variant, models in analysed.items() if models}
    blocks = {variant: model.found.blocks for variant, model in models.items()}
    if not blocks:
        return Section("audit", "Certificates against an attack")
    figures = [_ratios(blocks, looks), *(_against(variant, it) for variant, it in blocks.items())]
    tables = [_models(blocks), *(_blocks(variant, it) for variant, it in blocks.items())]
    title = "Certificates against an attack"
    notes = _notes(list(models.values()))
    measures = [measure for variant, it in blocks.items() for measure in _measures(variant, it)]
    return Section("audit", title, _sentences(blocks), tables, figures, notes, measures=measures)


def _sentences(models: Models) -> list[str]:
    every = [(variant, block) for variant, blocks in models.items() for block in blocks]
    refuted = [(variant, block) for variant, block in every if block.ratio > 1]
    sentences = [
        f"REFUTED: the proven bound {block.upper:.6g} of {variant}, {block.name}, is wrong: a gain of "
        f"{block.found:.6g} was found. Do not trust the inverse, the log-determinant or the certificate of this flow."
        for variant, block in refuted
    ]
    variant, block = max(every, key=lambda pair: pair[1].ratio)
    if not refuted:
        sentences.append(
            f"No bound is refuted: of {count(len(every))} blocks the largest found / bound is {block.ratio:.4f} "
            f"({variant}, {block.name}: {block.found:.4f} of {bound(block.upper)})."
        )
    local = max(every, key=lambda pair: pair[1].local)
    sentences.append(
        f"At test images the largest Jacobian norm of a block's branch is {local[1].local:.4f} ({local[0]}, "
        f"{local[1].name}), {local[1].local / max(local[1].upper, 1e-300):.0%} of its bound."
    )
    for variant, blocks in models.items():
        sentences += _on_slack(variant, blocks)
        if attending := [block.dependence for block in blocks if block.dependence is not None]:
            sentences.append(
                f"The output of attention in {variant} depends on other positions by {fmean(attending):.2f} (mean over "
                f"{_blocks_of(attending)}, {min(attending):.2f} to {max(attending):.2f})."
            )
        if weights := [block.weight for block in blocks if block.weight is not None]:
            sentences.append(
                f"Attention in {variant} brings {fmean(weights):.1%} of the spread of the features it is joined with "
                f"(mean over {_blocks_of(weights)})."
            )
    return sentences


def _blocks_of(values: Sequence[float]) -> str:
    return f"{len(values)} block{'s' * (len(values) > 1)}"


def _measures(variant: str, blocks: Sequence[AuditedBlock]) -> list[Measure]:
    """Return what tells whether a variant uses its attention, for other documents; nothing without attention."""
    attending, others = _uses(blocks)
    if not attending:
        return []
    values = {
        DEPENDENCE: [block.dependence for block in blocks if block.dependence is not None],
        WEIGHT: [block.weight for block in blocks if block.weight is not None],
        USE: attending,
        USE_OF_OTHERS: others,
    }
    return [Measure(name=name, variant=variant, value=fmean(of)) for name, of in values.items() if of]


def _uses(blocks: Sequence[AuditedBlock]) -> tuple[list[float], list[float]]:
    """Return how much of their bounds blocks with attention use at test images, and blocks without."""
    known = [block for block in blocks if block.upper > 0]
    attending = [block.local / block.upper for block in known if block.attention is not None]
    return attending, [block.local / block.upper for block in known if block.attention is None]


def _on_slack(variant: str, blocks: Sequence[AuditedBlock]) -> list[str]:
    attending, others = _uses(blocks)
    if not attending:
        return []
    beside = f", its other blocks {fmean(others):.0%}" if others else ""
    return [f"At test images blocks with attention of {variant} use {fmean(attending):.0%} of their bounds{beside}."]


def _models(models: Models) -> Table:
    rows = [
        [
            *(variant, count(len(blocks)), bound(max(block.upper for block in blocks))),
            *(decimal(max(getattr(block, key) for block in blocks), 4) for key in ("local", "found", "ratio")),
            *(_range([getattr(block, key) for block in blocks]) for key in ("share", "weight", "dependence")),
        ]
        for variant, blocks in models.items()
    ]
    headings = ["model", "blocks", "proven bound", "local norm", "found", "found / bound"]
    caption = "The largest of all blocks; of attention the mean over its blocks (lowest to highest)."
    return Table([*headings, "share", "weight", "dependence"], rows, caption)


def _blocks(variant: str, blocks: Sequence[AuditedBlock]) -> Table:
    rows = [
        [
            *(block.name, count(block.tokens), bound(block.upper)),
            *(decimal(value, 4) for value in (block.local, block.found, block.ratio)),
            block.attention or ABSENT,
            *(_number(value) for value in (block.share, block.weight, block.dependence)),
        ]
        for block in blocks
    ]
    headings = ["block", "tokens", "proven bound", "local norm", "found", "found / bound", "attention"]
    return Table([*headings, "share", "weight", "dependence"], rows, f"All blocks of {variant}", folded=True)


def _range(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{fmean(known):.2f} ({min(known):.2f} to {max(known):.2f})" if known else ABSENT


def _number(value: float | None) -> str:
    return ABSENT if value is None else decimal(value, 2)


def _ratios(models: Models, looks: Looks) -> Figure:
    def draw(axes: Axes) -> None:
        for variant, blocks in models.items():
            look = looks[variant]
            ratios = [block.ratio for block in blocks]
            axes.plot(range(1, len(blocks) + 1), ratios, ms=4, label=variant, **look.marked_line)
        axes.axhline(1, color="0.3", lw=1)
        axes.set(xlabel="block, in the order of the flow", ylabel="largest gain found / proven bound")
        axes.set_ylim(bottom=0)
        axes.locator_params(axis="x", integer=True)

    return draw_figure(
        "audit-ratios",
        "largest gain found over proven bound of every block of all variants",
        "Above 1 a bound would be refuted.",
        3.4,
        draw,
    )


def _against(variant: str, blocks: Sequence[AuditedBlock]) -> Figure:
    def draw(axes: Axes) -> None:
        places = range(1, len(blocks) + 1)
        series = {"proven bound": ("upper", "_"), "found": ("found", "^"), "local norm at test images": ("local", "o")}
        for shade, (label, (key, marker)) in zip(("black", "0.35", "0.65"), series.items(), strict=True):
            values = [getattr(block, key) for block in blocks]
            axes.plot(places, values, ls="", marker=marker, ms=6, color=shade, label=label)
        for place, block in zip(places, blocks, strict=True):
            if block.attention is not None:
                axes.axvspan(place - 0.5, place + 0.5, color="0.92", lw=0, zorder=0)
        axes.set(xlabel="block, in the order of the flow", ylabel="l2 gain")
        axes.set_ylim(bottom=0)
        axes.locator_params(axis="x", integer=True)

    return draw_figure(
        f"audit-{variant}",
        f"proven bound, largest gain found and local norm of every block of {variant}",
        f"{variant}; blocks with attention are shaded.",
        3.2,
        draw,
    )


def _notes(models: Sequence[AnalysedModel[Audit]]) -> list[str]:
    images = sorted({model.found.images for model in models})
    steps = sorted({str(model.settings["steps"]) for model in models if "steps" in model.settings})
    ascent = f" of {' or '.join(steps)} steps" if steps else ""
    return [
        "Proven bound: upper bound of the Lipschitz constant of a block's branch (l2), rounded up. Local norm: the "
        f"largest norm of its Jacobian at the activations of {' or '.join(map(str, images))} test images.",
        f"Found: the largest norm that two gradient ascents{ascent} find, from there and from made-up inputs, in "
        "float64, of the first seed's model. The Lipschitz constant lies between found and proven; "
        "an attack can refute a bound and not confirm it.",
        "Share: learnt share of attention where it is joined to features. Weight: part of the joined features' spread "
        "that attention brings. Dependence: how far attention's output at a position depends on the others, 0 not at "
        "all, about 1 on them alone.",
    ]


section = AnalysisPart(Audit, section_of)
