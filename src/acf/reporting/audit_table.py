"""The audit of an experiment's models as Markdown, a rendering of its JSON and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

NOT_AVAILABLE = "not available"
MODEL_COLUMNS = (
    *("model", "seed", "parameters", "bits/dim", "proven bound", "local norm", "found", "found / bound"),
    *("share", "weight", "dependence"),
)
BLOCK_COLUMNS = (
    *("block", "tokens", "proven bound", "local norm", "found", "found / bound"),
    *("attention", "share", "weight", "dependence"),
)
LEGEND = (
    "Proven bound: upper bound of the Lipschitz constant of the block's branch, rounded up; of a model its worst.",
    "Local norm: largest norm of the branch's Jacobian at the test images' activations; of a model over all blocks.",
    "Found: largest norm of the branch's Jacobian met by ascent from there and from made-up inputs.",
    "Found / bound: at most 1, or the bound is refuted.",
    "Share: learnt share of attention, or its share of the channels; - for attention in a block of its own.",
    "Weight: part of the joined features' spread over images and positions that attention brings.",
    "Dependence: how far attention's output at a position depends on the others; 0 not at all, about 1 on them alone.",
    "Of a model: mean over the blocks with attention, lowest and highest in brackets.",
)


def markdown(table: Mapping[str, Any]) -> str:
    """Return the Markdown of what `acf audit` keeps as JSON: a row per model, then a table of each model's blocks."""
    how, models = table["how"], table["models"]
    versions = ", ".join(f"{name} {version}" for name, version in how["versions"].items())
    lines = [
        f"# `{table['command']}`",
        "",
        f"The first {how['images']} test images of {table['dataset']}; ascent of two climbs of {how['steps']} steps, "
        f"seed {how['seed']}; {how['dtype']} on {how['device']}; {versions}.",
        "",
        *_table(MODEL_COLUMNS, map(_model_row, models)),
        "",
        *(f"- {line}" for line in LEGEND),
    ]
    for model in models:
        recipe, steps = (model[key] or NOT_AVAILABLE for key in ("recipe", "train_steps"))
        lines += ["", f"## {model['variant']}, seed {model['seed']}", ""]
        lines += [f"Training steps: {steps}; recipe: {recipe}.", ""]
        lines += _table(BLOCK_COLUMNS, map(_block_row, model["blocks"]))
    return "\n".join(lines) + "\n"


def _model_row(model: Mapping[str, Any]) -> list[str]:
    ranges = [_range(model["summary"][key]) for key in ("share", "weight", "dependence")]
    bits, error = model["bits_per_dim"], model["bits_per_dim_se"]
    measured = NOT_AVAILABLE if bits is None else f"{bits:.3f}" if error is None else f"{bits:.3f} ± {error:.3f}"
    head = [model["variant"], str(model["seed"]), f"{model['parameters']:,}", measured]
    return [*head, *_gains(model["summary"]), *ranges]


def _block_row(block: Mapping[str, Any]) -> list[str]:
    uses = [_number(block[key], 2) for key in ("share", "weight", "dependence")]
    return [block["name"], str(block["tokens"]), *_gains(block), block["attention"] or "-", *uses]


def _gains(values: Mapping[str, Any]) -> list[str]:
    upper = values["upper"]
    proven = "-" if upper is None else f"{math.ceil(upper * 1e4) / 1e4:.4f}"
    return [proven, *(_number(values[key], 4) for key in ("local", "found", "ratio"))]


def _range(values: Mapping[str, float] | None) -> str:
    return "-" if values is None else f"{values['mean']:.2f} ({values['lowest']:.2f} to {values['highest']:.2f})"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    names = list(columns)
    rule = [":--", *["--:"] * (len(names) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (names, rule, *rows)]
