"""Everything that a report shows about one experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from acf.data.prepared.manifest import Column
from acf.errors import AcfError
from acf.registry import BASELINES, BASELINES_OF_VECTORS
from acf.reporting.result_files import read_table
from acf.reporting.row_schemas import HistoryRow
from acf.reporting.schemas import Baselines, Metrics, TrainedModel
from acf.reporting.wording import seconds_note
from acf.settings.params import Run


class Absent(NamedTuple):
    """Something of a run that a report has to do without.

    Attributes:
        run: the run.
        why: "not trained", "not evaluated" or what is damaged, and the command that makes it.
    """

    run: Run
    why: str

    @property
    def name(self) -> str:
        """Variant and seed of the run."""
        return f"{self.run.variant}, seed {self.run.seed}"

    @property
    def text(self) -> str:
        """The run and why it is absent."""
        return f"{self.name}: {self.why}"


@dataclass(frozen=True)
class Results:
    """Everything a report shows about one experiment."""

    experiment: str
    dataset: str
    baselines: Baselines
    metrics: dict[str, list[Metrics]]
    """Per variant, in the order of `params.yaml`, one per seed that has been evaluated; none may have been."""
    images: dict[tuple[str, int], NDArray[np.float64]]
    """Per variant and seed of `metrics`, bits/dim of every test image (images,)."""
    labels: Mapping[tuple[str, int], Mapping[str, NDArray[np.float64]]]
    """Per variant and seed with classification heads, `correct` and `label_log_prob` of every test image (images,)."""
    baseline_images: dict[str, NDArray[np.float64]]
    """The same per baseline."""
    histories: dict[str, list[pd.DataFrame]]
    """Per variant, one for each of `metrics`."""
    bases: dict[str, str | None]
    """Per variant the one it is compared with, of the same task; None without one.

    Of a variant with attention it is the one without that else differs in size alone, and of others without attention
    the first one of the experiment.
    """
    tasks: Mapping[str, str]
    """Per variant, what it is trained for, a key of `acf.registry.TASKS`."""
    trained: Mapping[tuple[str, int], TrainedModel] = field(default_factory=dict)
    """Per variant and seed of `metrics`, how the model was trained."""
    absent: Sequence[Absent] = ()
    """Runs that are not in `metrics`, and why."""
    columns: Sequence[Column] | None = None
    """Of the table that the flows are of; None for flows of images."""
    made: str = ""
    """What models see of another data set, in sentences; "" where they see the prepared images."""
    remark: str = ""
    """What a reader has to know of the data set, in sentences; "" where there is nothing."""
    incomparable_seconds: str = ""
    """Why the seconds of the trainings cannot be compared (`ReportingConfig`); "" where they can."""

    @property
    def reference(self) -> str:
        """The baseline that gains are counted from: of those that could be fitted, the last in the registry."""
        known = BASELINES if self.columns is None else BASELINES_OF_VECTORS
        return [name for name in known if name in self.baselines.baselines][-1]

    @property
    def on_data(self) -> str:
        """What is said of the data set, in sentences."""
        return " ".join(filter(None, [self.made, self.remark]))

    @property
    def notes_on_seconds(self) -> list[str]:
        """A note where the seconds of the trainings cannot be compared, otherwise nothing."""
        return [seconds_note(self.incomparable_seconds)] if self.incomparable_seconds else []

    @property
    def unit(self) -> str:
        """What the data set has, "images" or "rows"."""
        return "images" if self.columns is None else "rows"

    def is_trained_for_density(self, variant: str) -> bool:
        """Whether bits/dim are what a variant is trained for, alone or among other things."""
        return self.tasks[variant] != "classification"

    @property
    def runs(self) -> list[Metrics]:
        """The metrics of all variants and seeds."""
        return [metrics for seeds in self.metrics.values() for metrics in seeds]


def read_history(path: Path, command: str) -> pd.DataFrame:
    """Return the columns of a history.csv that a report shows; what was not measured is NaN.

    Args:
        path: the file.
        command: what writes it again, for messages.

    Raises:
        AcfError: the file is not such a table, or its steps and seconds do not go forward; names it.
    """
    rows = read_table(path, HistoryRow, command, more_columns=True)
    for before, row in pairwise(rows):
        if row.step <= before.step or row.seconds < before.seconds:
            raise AcfError(f"{path}: step {row.step} comes after step {before.step}; run: {command}")
    return pd.DataFrame([row.model_dump() for row in rows]).astype(float)
