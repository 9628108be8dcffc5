"""What was trained, and what is certified: parts of documents that compare nothing."""

from __future__ import annotations

from collections.abc import Sequence

from acf.reporting.findings.study import Experiment
from acf.reporting.wording import ABSENT, NOT_AVAILABLE, bound, count, markdown_table, seconds_note

HEADINGS = ["experiment", "data set", "trainings", "steps", "test samples", "draws", "machine", "report"]


def experiments_part(study: Sequence[Experiment]) -> str:
    """Return the table of all experiments: what of them is trained, where, the report, and remarks on them."""
    remarks = [(experiment.dataset, experiment.remark) for experiment in study if experiment.remark]
    remarks += [
        (experiment.name, seconds_note(experiment.incomparable_seconds))
        for experiment in study
        if experiment.incomparable_seconds
    ]
    said = "".join(f"- `{name}`: {remark}\n" for name, remark in dict.fromkeys(remarks))
    table = markdown_table(HEADINGS, [_row(experiment) for experiment in study], left=2)
    return f"{table}\n{said}" if said else table


def on_certificates(study: Sequence[Experiment]) -> str:
    """Return the worst proven bound of all flows that are measured."""
    flows = [(row, experiment) for experiment in study for _, row in experiment.flows.iterrows()]
    if not flows:
        return "Not available: no flow is measured yet."
    worst, experiment = max(flows, key=lambda pair: pair[0]["certificate"])
    number = sum(int(row["seeds"]) for row, _ in flows)
    return (
        f"The branch of every block of all {count(number)} trained flows is proven to be a contraction; the largest "
        f"bound is {bound(worst['certificate'])} ({worst['row']} in `{experiment.name}`)."
    )


def _row(experiment: Experiment) -> list[str]:
    planned = len(experiment.bases) * len(experiment.seeds)
    flows, name = experiment.flows, experiment.name
    if flows.empty:
        lacking = [f"0 of {planned}", *[ABSENT] * 3, NOT_AVAILABLE]
        return [f"`{name}`", experiment.dataset, *lacking, f"none: `dvc repro report@{name}`"]
    devices = dict.fromkeys(device for each in flows["device"].dropna() for device in str(each).split("; "))
    return [
        *(f"`{name}`", experiment.dataset, f"{count(flows['seeds'].sum())} of {planned}"),
        *(_range(flows[column].tolist()) for column in ("train_steps", "test_images", "draws")),
        "; ".join(devices) or NOT_AVAILABLE,
        f"[report](../reports/{name}/index.html)",
    ]


def _range(values: Sequence[int]) -> str:
    ends = dict.fromkeys([min(values), max(values)])
    return " to ".join(count(value) for value in ends)
