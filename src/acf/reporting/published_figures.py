"""Published figures, each with its source and a mark that says whether it was seen or quoted from memory."""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple

import yaml

MARKS = {
    "S": "seen in a published table",
    "M": "quoted from memory of the paper, not seen",
}


class Published(NamedTuple):
    """One published result; texts keep the digits as published, empty where there is none."""

    model: str
    bits_per_dim: str
    parameters: str
    fid: str
    source: str


def published(dataset: str) -> list[Published]:
    """Return the published figures on `dataset`, an empty list where none are on record."""
    record = yaml.safe_load(files("acf.reporting").joinpath("published_figures.yaml").read_text(encoding="utf-8"))
    return [
        Published(
            model=model,
            bits_per_dim=f"{entry['bits_per_dim']} {entry['mark']}",
            parameters=entry.get("parameters", ""),
            fid=f"{entry['fid']} {entry['fid_mark']}" if "fid" in entry else "",
            source=record["sources"][model],
        )
        for model, entry in record["datasets"].get(dataset, {}).items()
    ]
