"""Published figures, each with its source, a mark that says whether it was seen, and what ours says of it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any, NamedTuple

import pandas as pd
import yaml

from acf.reporting.page_parts import Section, Table
from acf.reporting.results import Results
from acf.reporting.wording import ABSENT, NOT_AVAILABLE, with_error

MARKS = {
    "S": "seen in a published table",
    "M": "quoted from memory of the paper, not seen",
}
REPRODUCED, OUTSIDE, REDUCED, NOT_RUN = "reproduced", "outside tolerance", "reduced budget", "not run"


class Published(NamedTuple):
    """One published result; texts keep the digits as published, empty where there is none.

    Attributes:
        model: its name in the paper.
        bits_per_dim: with its mark.
        parameters: number of parameters.
        fid: with its mark.
        source: where the model was published.
        variant: that of params.yaml with the same architecture; None if there is none.
        epochs: for how long it was trained; None where no source says it.
        epochs_source: what says so.
    """

    model: str
    bits_per_dim: str
    parameters: str
    fid: str
    source: str
    variant: str | None
    epochs: int | None
    epochs_source: str


def published(dataset: str) -> list[Published]:
    """Return the published figures on `dataset`, an empty list where none are on record."""
    record = _record()
    return [_published(record, dataset, model, entry) for model, entry in record["datasets"].get(dataset, {}).items()]


def published_section(table: pd.DataFrame, results: Results, training_images: int | None) -> Section:
    """Return the published figures on the data set of an experiment beside ours, each with its state.

    Args:
        table: the comparison table.
        results: of the experiment.
        training_images: in the data set; None if that is not known.
    """
    entries = [] if results.made else published(results.dataset)
    name, title = "published", "Published figures"
    if not entries:
        said = ["Published figures on this data set: not available.", *filter(None, [results.made])]
        return Section(name, title, said)
    errors = _record()["tolerance"]["standard_errors"]
    flows = {row["row"]: row for _, row in table[table["kind"] == "flow"].iterrows()}
    flows = {name: row for name, row in flows.items() if results.tasks[name] == "density"}  # as those published
    rows = [
        _row(entry, flows.get(entry.variant), _epochs(entry, results, training_images), errors) for entry in entries
    ]
    heads = ["model", "bits/dim", "parameters", "FID", "epochs", "our variant", "our bits/dim", "our epochs", "state"]
    said = sorted({f"{entry.model}: {entry.epochs_source}" for entry in entries if entry.epochs})
    return Section(
        name,
        title,
        tables=[Table([*heads, "source"], rows, "Published test bits/dim beside ours of the same architecture.")],
        notes=[
            f"{'; '.join(f'{mark}: {meaning}' for mark, meaning in MARKS.items())}.",
            f"{REPRODUCED}: ours differs by at most {errors} of our standard errors and half a unit of the last "
            "published digit, which is this project's choice, as the papers give no errors; "
            f"{OUTSIDE}: it differs by more; "
            f"{REDUCED}: ours was trained for fewer epochs than published, so that the two cannot be compared; "
            f"{NOT_RUN}: no variant of this experiment has that architecture and is trained for bits/dim alone, or it "
            "is not evaluated.",
            *([f"Published epochs, of {'; '.join(said)}."] if said else []),
        ],
    )


def state(published: str, bits: float, error: float, errors: float) -> str:
    """Return whether our bits/dim, with its standard error, reproduce a published figure.

    Args:
        published: the digits as published.
        bits: ours.
        error: its standard error.
        errors: how many of them are tolerated beside half a unit of the last published digit.
    """
    decimals = len(published.partition(".")[2])
    apart = bits - float(published)
    # 1e-9: digits are decimal, and what is exactly at the edge is within.
    if abs(apart) <= 0.5 * 10**-decimals + errors * error + 1e-9:
        return REPRODUCED
    return f"{OUTSIDE}, {abs(apart):.{max(decimals, 3)}f} {'higher' if apart > 0 else 'lower'}"


def _record() -> dict[str, Any]:
    text = files("acf.reporting").joinpath("published_figures.yaml").read_text(encoding="utf-8")
    record: dict[str, Any] = yaml.safe_load(text)
    return record


def _published(record: Mapping[str, Any], dataset: str, model: str, entry: Mapping[str, str]) -> Published:
    epochs = record["epochs"].get(model, {})
    known = dataset in epochs.get("datasets", ())
    return Published(
        model=model,
        bits_per_dim=f"{entry['bits_per_dim']} {entry['mark']}",
        parameters=entry.get("parameters", ""),
        fid=f"{entry['fid']} {entry['fid_mark']}" if "fid" in entry else "",
        source=record["sources"][model],
        variant=record["variants"].get(model),
        epochs=epochs["number"] if known else None,
        epochs_source=epochs["source"] if known else "",
    )


def _epochs(entry: Published, results: Results, training_images: int | None) -> float | None:
    """Return for how many epochs our variant was trained, the least of its seeds; None if that is not known."""
    histories = results.histories.get(entry.variant or "", [])
    if not histories or not training_images:
        return None
    return float(min(history["images"].iloc[-1] for history in histories)) / training_images


def _row(entry: Published, ours: pd.Series | None, epochs: float | None, errors: float) -> list[str]:
    start = [entry.model, entry.bits_per_dim, *(text or ABSENT for text in (entry.parameters, entry.fid))]
    start.append(str(entry.epochs) if entry.epochs else NOT_AVAILABLE)
    if ours is None:
        return [*start, entry.variant or ABSENT, ABSENT, ABSENT, NOT_RUN, entry.source]
    bits, error = ours["bits_per_dim"], ours["bits_per_dim_se"]
    reached = state(entry.bits_per_dim.split()[0], bits, error, errors)
    if entry.epochs and epochs is not None and epochs < entry.epochs:
        reached = REDUCED
    shown = NOT_AVAILABLE if epochs is None else f"{epochs:.3g}"
    return [*start, str(entry.variant), with_error(bits, error), shown, reached, entry.source]
