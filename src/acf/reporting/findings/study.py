"""What the documents on all experiments are written from: what is stored of each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from acf.reporting.convergence import Curve
from acf.reporting.findings_file import Findings

Kind = Literal["attention", "base"]
"""Of a pair: a variant with attention and the one without, or two variants without attention."""
AMONG: dict[Kind, str] = {"attention": "attentive variants", "base": "variants without attention"}
"""What the variants of pairs of a kind are called."""


@dataclass(frozen=True)
class Experiment:
    """One experiment, with or without results.

    Attributes:
        name: key under `experiments` in params.yaml.
        dataset: what it is on.
        seeds: those that it trains.
        bases: the base of each variant, None where it has none.
        attentive: the variants with attention.
        within_branches: those of them whose attention is a part of other blocks' branches, as in the paper.
        tasks: what each variant is trained for.
        table: the comparison table of its report; None without a report.
        findings: those of its report; None without them.
        curves: validations of the trainings of each variant that has any.
        remark: what a reader has to know of the data set, in sentences; "" where there is nothing.
        incomparable_seconds: why the seconds of its trainings cannot be compared; "" where they can.
    """

    name: str
    dataset: str
    seeds: Sequence[int]
    bases: Mapping[str, str | None]
    attentive: Set[str]
    tasks: Mapping[str, str]
    within_branches: Set[str] = frozenset()
    table: pd.DataFrame | None = None
    findings: Findings | None = None
    curves: Mapping[str, Sequence[Curve]] = field(default_factory=dict)
    remark: str = ""
    incomparable_seconds: str = ""

    @property
    def flows(self) -> pd.DataFrame:
        """Rows of the table that are of flows, by variant; none without a report."""
        if self.table is None:
            return pd.DataFrame()
        return self.table[self.table["kind"] == "flow"].set_index("row", drop=False)

    def pairs(self, kind: Kind) -> dict[str, str]:
        """Return the variants of a kind that have a base, and their bases, as far as they are trained for bits/dim."""
        return {
            variant: base
            for variant, base in self.bases.items()
            if base is not None
            and (variant in self.attentive) == (kind == "attention")
            and self.tasks[variant] != "classification"
        }

    @property
    def remedy(self) -> str:
        """What measures whatever its report lacks."""
        return f"run: `dvc repro report@{self.name}`"

    def measures(self, variant: str) -> dict[str, float]:
        """Return what the report measured of the attention of a variant, by name (`attention_measures.py`)."""
        found = self.findings.measures if self.findings else ()
        return {one.name: one.value for one in found if one.variant == variant}

    def caveats(self, variant: str) -> list[str]:
        """Return what keeps any comparison of a variant from being one of densities with errors that hold."""
        task = self.tasks[variant]
        return [
            *([] if task == "density" else [f"task {task}"]),
            *([f"see the remark on {self.dataset}"] if self.remark else []),
        ]

    def seconds_caveats(self, variant: str, base: str) -> list[str]:
        """Return what keeps seconds from being compared: the experiment's own remark, or two machines."""
        if self.incomparable_seconds:
            return [f"seconds not comparable, {self.incomparable_seconds}"]
        flows = self.flows
        if {variant, base} <= set(flows.index) and flows.loc[variant]["device"] != flows.loc[base]["device"]:
            return ["on another machine"]
        return []
