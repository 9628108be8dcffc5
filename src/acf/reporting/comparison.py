"""The comparison table in full precision: one row per baseline and per variant."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from acf.errors import AcfError
from acf.reporting.paired_differences import Difference
from acf.reporting.pairing import Pairing
from acf.reporting.result_files import parse_table, read_table
from acf.reporting.results import Results
from acf.reporting.row_schemas import OF_LABELS, Row
from acf.reporting.schemas import Metrics


def comparison(results: Results) -> pd.DataFrame:
    """Return the table, whose columns are the fields of `Row`; what a row has no value for is None.

    `gain` is the reference baseline's bits/dim minus the row's (positive: the row is better), `base_gain` that of the
    variant's base; their errors are those of paired images (`paired_differences.py`), and they are None where the two
    rows were not measured on the same images. The interval of `base_gain` is one of as many as there are `comparisons`
    in the experiment, which all hold at once with the level `LEVEL`. Variants without results have no row.
    """
    rows = [
        {
            "row": name,
            "kind": "baseline",
            "bits_per_dim": baseline.bits_per_dim,
            "bits_per_dim_se": baseline.bits_per_dim_se,
            "se_over": "images",
            "bits_per_dim_se_images": baseline.bits_per_dim_se,
            "parameters": baseline.parameters,
            "test_images": results.baselines.test_images,
            "draws": results.baselines.draws,
        }
        for name, baseline in results.baselines.baselines.items()
    ]
    rows += [_flow(variant, seeds) | _labels(seeds) for variant, seeds in results.metrics.items() if seeds]
    pairing = Pairing(results)
    over_bases = pairing.gains_over_bases(results.bases)
    for row in rows:
        name = str(row["row"])
        if name != results.reference and (gain := pairing.gain(results.reference, name)):
            row |= {"gain": gain.mean, "gain_se": gain.se}
        if name in over_bases:
            row |= _over_base(str(results.bases[name]), over_bases[name], len(over_bases))
    return _table(Row.model_validate(row) for row in rows)


def read_comparison(path: Path, experiment: str) -> pd.DataFrame:
    """Return the table that the report on `experiment` keeps in `path`.

    Raises:
        AcfError: the file is missing or is not such a table; names file, line, column, and what writes it again.
    """
    command = f"acf report --experiment {experiment}"
    if not path.exists():
        raise AcfError(f"{path} is missing; run: dvc repro report@{experiment} (or {command})")
    return _checked(read_table(path, Row, command), path, command)


def parse_comparison(text: str, place: str, experiment: str) -> pd.DataFrame:
    """Return the table whose CSV text is `text`; `place` is its name in messages.

    Raises:
        AcfError: as `read_comparison`.
    """
    command = f"acf report --experiment {experiment}"
    return _checked(parse_table(text, place, Row, command), place, command)


def bits_of_seeds(bits: Iterable[tuple[int | str, float]]) -> str:
    """Return the cell `bits_per_dim_of_seeds` of seeds and their bits/dim."""
    return "; ".join(f"{seed}: {value!r}" for seed, value in bits)


def _checked(rows: list[Row], place: Path | str, command: str) -> pd.DataFrame:
    names = [row.row for row in rows]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise AcfError(f"{place} has several rows of {', '.join(twice)}; run: {command}")
    if not any(row.kind == "baseline" for row in rows):
        raise AcfError(f"{place} has no baselines; run: {command}")
    return _table(rows)


def _table(rows: Iterable[Row]) -> pd.DataFrame:
    table = pd.DataFrame([row.model_dump() for row in rows], dtype=object)
    if table[list(OF_LABELS)].isna().all(axis=None):
        table = table.drop(columns=list(OF_LABELS))
    return table.astype({"bits_per_dim": float, "bits_per_dim_se": float})


def _over_base(base: str, gain: Difference, comparisons: int) -> dict[str, Any]:
    low, high = gain.interval(comparisons)
    return {
        "base": base,
        "base_gain": gain.mean,
        "base_gain_se": gain.se,
        "base_gain_low": low,
        "base_gain_high": high,
        "base_gain_over": gain.over,
        "base_gain_training_df": gain.training_df,
        "comparisons": comparisons,
    }


def _flow(variant: str, seeds: list[Metrics]) -> dict[str, Any]:
    bits = [metrics.bits_per_dim for metrics in seeds]
    over_images = fmean(metrics.bits_per_dim_se for metrics in seeds)
    several = len(seeds) > 1
    return {
        "row": variant,
        "kind": "flow",
        "seeds": len(seeds),
        "bits_per_dim": fmean(bits),
        "bits_per_dim_se": stdev(bits) / math.sqrt(len(bits)) if several else over_images,
        "se_over": "seeds" if several else "images",
        "bits_per_dim_se_images": over_images,
        "bits_per_dim_of_seeds": bits_of_seeds((metrics.seed, metrics.bits_per_dim) for metrics in seeds),
        **{part: fmean(getattr(m.parts, part) for m in seeds) for part in type(seeds[0].parts).model_fields},
        "parameters": max(metrics.parameters for metrics in seeds),
        "certificate": max(metrics.certificate.worst for metrics in seeds),
        "reconstruction_error": max(metrics.reconstruction_error for metrics in seeds),
        "train_seconds": fmean(metrics.train_seconds for metrics in seeds),
        "train_steps": max(metrics.train_steps for metrics in seeds),
        "images_per_second": fmean(metrics.images_per_second for metrics in seeds),
        "device": "; ".join(dict.fromkeys(d for m in seeds for d in (m.train_device, m.device) if d)),
        "test_images": min(metrics.test_images for metrics in seeds),
        "draws": min(metrics.draws for metrics in seeds),
    }


def _labels(seeds: list[Metrics]) -> dict[str, Any]:
    """Return what a row says of labels: means over seeds, with the standard error over what `se_over` says."""
    found = [metrics.classification for metrics in seeds if metrics.classification is not None]
    if not found:
        return {}
    row = {}
    for name in ("accuracy", "cross_entropy", "calibration_error"):
        values = [getattr(one, name) for one in found]
        errors = [getattr(one, f"{name}_se") for one in found]
        row[name] = fmean(values)
        row[f"{name}_se"] = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else errors[0]
    return row
