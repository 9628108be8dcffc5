"""What a report found of every variant against its base, for other documents: `reports/<experiment>/findings.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import PositiveInt, model_validator

from acf.reporting.result_files import read_result
from acf.reporting.schemas import Name, NotNegative, Number, Stored

FINDINGS = "findings.json"
"""Name of the file, beside the tables of a report."""


class PairFinding(Stored):
    """One quantity, of which less is better, of a variant and of its base, or of a partner in its place."""

    quantity: Name
    """Name of the section that measured it, or of a comparison with a partner of as many blocks or seconds."""
    at: str
    """Where on its scale: a standard deviation of noise, a kind of paths, blocks; "" where there is none."""
    variant: Name
    base: Name
    value: Number
    value_se: NotNegative
    of_base: Number
    of_base_se: NotNegative
    gain: Number
    """`of_base` - `value`, paired where that is possible: positive if the variant is better."""
    gain_se: NotNegative
    low: Number
    high: Number
    """Ends of the interval of the gain, which holds together with those of all variants."""
    over: Name
    """What was measured: "297 test images"."""
    seeds: PositiveInt
    """Trainings of the variant; where it and its base have one each, errors say nothing of how trainings differ."""
    base_seeds: PositiveInt

    @model_validator(mode="after")
    def _gain_within(self) -> Self:
        if not self.low <= self.gain <= self.high:
            raise ValueError(f"the interval of the gain does not hold {self.gain}")
        return self


class Measure(Stored):
    """One number of one variant, of the model of its first seed."""

    name: Name
    variant: Name
    value: Number


class Findings(Stored):
    """Content of the file."""

    experiment: Name
    pairs: list[PairFinding]
    measures: list[Measure]
    sentences: dict[Name, list[str]]
    """What each section of the report says, by its name."""


def findings_file(
    experiment: str,
    pairs: Sequence[PairFinding],
    sentences: Mapping[str, Sequence[str]],
    measures: Sequence[Measure] = (),
) -> bytes:
    """Return the content of the file.

    Args:
        experiment: key under `experiments` in params.yaml.
        pairs: of all sections of the report.
        sentences: of each section, by its name.
        measures: of all sections.
    """
    said = {name: list(each) for name, each in sentences.items()}
    content = Findings(experiment=experiment, pairs=list(pairs), measures=list(measures), sentences=said)
    return (json.dumps(content.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_findings(path: Path, experiment: str) -> Findings:
    """Return what the report on `experiment` found.

    Raises:
        AcfError: the file is missing or damaged; names it, and what writes it again.
    """
    return read_result(path, Findings, {"experiment": experiment}, f"acf report --experiment {experiment}")
