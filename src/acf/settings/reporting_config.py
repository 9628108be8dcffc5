"""Settings of the report on an experiment."""

from __future__ import annotations

from pydantic import Field

from acf.settings.section import Section


class ReportingConfig(Section):
    """What the report on an experiment compares."""

    counted: bool = Field(
        default=True,
        description="Whether the experiment counts as evidence: one that does not has a report, but README and "
        "docs/results.md leave it out. This project's choice.",
    )
    incomparable_seconds: str = Field(
        default="",
        description="Why the seconds of the trainings cannot be compared with each other, as the end of a sentence, "
        "such as `they shared one GPU`; empty where they can. Reports say so and have no ratios of seconds. "
        "This project's choice.",
    )
    validation_targets: list[float] = Field(
        default=[],
        description="Validation bits/dim for which the report says how many steps and seconds each flow took to reach "
        "it, beside the last one of the base flow. This project's choice.",
    )
