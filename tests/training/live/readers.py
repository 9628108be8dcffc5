"""What readers of live curves see."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from acf.training.live.sink import LABELS

Curves = dict[str, list[tuple[int, float]]]


def dvclive_curves(folder: Path) -> Curves:
    curves: Curves = {}
    tables = folder / "plots/metrics"
    for path in tables.rglob("*.tsv"):
        with path.open() as file:
            rows = [(int(row["step"]), float(row[path.stem])) for row in csv.DictReader(file, delimiter="\t")]
        curves[path.relative_to(tables).with_suffix("").as_posix()] = rows
    return curves


def tensorboard_curves(folder: Path) -> Curves:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


READERS: dict[str, Callable[[Path], Curves]] = {"dvclive": dvclive_curves, "tensorboard": tensorboard_curves}


def expected(rows: Sequence[Mapping[str, Any]]) -> Curves:
    """The curves that have the rows of a history, once each; what was measured in no row has none."""
    return {
        label: [(int(row["step"]), float(row[column])) for row in rows if row[column] != ""]
        for column, label in LABELS.items()
        if any(row[column] != "" for row in rows)
    }


def require_same(shown: Curves, rows: Sequence[Mapping[str, Any]]) -> None:
    curves = expected(rows)
    assert shown.keys() == curves.keys()
    for label, curve in curves.items():
        assert [step for step, _ in shown[label]] == [step for step, _ in curve], label
        # TensorBoard has 32 bits per number.
        assert [value for _, value in shown[label]] == pytest.approx([value for _, value in curve], rel=1e-7), label
