"""What a study ends with, without times: what has to be the same however often its processes were disturbed."""

import csv
import io
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import load

TIMED_KEYS = {"evaluate_seconds", "images_per_second", "train_seconds", "recipe", "sha256", "seconds", "device"}
TIMED_KEYS |= {"images_sha256"}  # of a table that is compared itself, with other threads up to rounding
"""Keys and columns that differ: times; `recipe` in metrics.json and `sha256`, which cover config.json and its seconds;
and the device's name, which has the number of threads, as many as the engine gives."""
TIMED_HEADINGS = {
    "training time",
    "evaluation time",
    "evaluations/s",
    "images/s",
    "recipe of evaluation",
    "device",
}
POWER_ITERATION = (".left", ".right")
"""Ends of names of vectors that only start the next estimate of a norm."""
SNAKEMAKE_MARK = ".snakemake_timestamp"
"""What Snakemake leaves in a folder that is an output."""
TIMED_PICTURE = "curves-seconds"


def results(root: Path) -> dict[str, Any]:
    """Return all results of a project by path: bytes, texts, and what JSON and CSV files hold."""
    paths = [
        path for top in ("models", "results", "analyses", "samples", "reports") for path in (root / top).rglob("*.*")
    ]
    return {
        path.relative_to(root).as_posix(): _content(path)
        for path in sorted(paths)
        if path.is_file() and path.stem != TIMED_PICTURE and path.name != SNAKEMAKE_MARK
    }


def differences(found: Any, expected: Any, closely: bool = False, place: str = "") -> Iterator[str]:
    """Say where results differ; `closely` lets numbers differ by as much as other sums round."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted({*found, *expected}):
            where = f"{place}/{key}" if place else key
            if key not in found or key not in expected:
                yield f"{where} is {'missing' if key in expected else 'too many'}"
            else:
                yield from differences(found[key], expected[key], closely, where)
    elif isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            yield from differences(one, other, closely, f"{place}/{number}")
    elif found != expected and not (closely and _close(found, expected, place)):
        yield f"{place}: {str(found)[:200]!r} instead of {str(expected)[:200]!r}"


def _content(path: Path) -> Any:
    content = path.read_bytes()
    if path.suffix == ".json":
        return _without_times(json.loads(content))
    if path.suffix == ".csv":
        return [_without_times(row) for row in csv.DictReader(io.StringIO(content.decode()))]
    if path.suffix == ".md":
        return _markdown_without_times(content.decode())
    return _page_without_times(content.decode()) if path.suffix == ".html" else content


def _without_times(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_times(entry) for key, entry in value.items() if key not in TIMED_KEYS}


def _markdown_without_times(text: str) -> str:
    lines = [re.split(r" *\| *", line) for line in text.splitlines()]
    return "\n".join("|".join(_masked(lines[0], line)) for line in lines)


def _page_without_times(text: str) -> str:
    def masked(table: re.Match[str]) -> str:
        rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr.*?</tr>", table[0])]
        return repr([_masked(rows[0], row) for row in rows])

    text = re.sub(r"<table.*?</table>", masked, text, flags=re.DOTALL)
    text = re.sub(r'<meta name="recipe" content="\w+">', "", text)  # it covers the seconds
    text = re.sub(r"<dt>Device of \w+</dt><dd>[^<]*</dd>", "", text)
    return re.sub(r'<img src="[^"]*" alt="bits/dim by seconds of training">', "", text)


def _masked(headings: list[str], row: list[str]) -> list[str]:
    if len(headings) != len(row):
        return row
    return ["" if heading in TIMED_HEADINGS else cell for heading, cell in zip(headings, row, strict=True)]


def _close(found: Any, expected: Any, place: str) -> bool:
    """Say whether values agree up to what rounding becomes in a training.

    Adam's first steps are as long where a gradient is nothing but rounding as elsewhere, so they differ by more than
    sums do. Reports show what is compared elsewhere.
    """
    if place.startswith("reports/") or place.endswith("train_device"):
        return True
    if place.endswith(".safetensors"):
        weights, others = load(found), load(expected)
        names = {name for name in others if not name.endswith(POWER_ITERATION)}
        return weights.keys() == others.keys() and all(
            np.allclose(weights[name], others[name], rtol=1e-2, atol=3e-3) for name in names
        )
    if place.endswith(".png"):
        pictures = [np.asarray(Image.open(io.BytesIO(content)), dtype=float) for content in (found, expected)]
        return pictures[0].shape == pictures[1].shape and bool(np.abs(pictures[0] - pictures[1]).mean() < 2)
    try:
        return math.isclose(float(found), float(expected), rel_tol=0.1 if "gradient" in place else 0.01, abs_tol=1e-4)
    except ValueError:
        return False
