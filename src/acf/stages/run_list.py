"""The runs in the run store, as `acf runs` shows them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from acf.errors import AcfError
from acf.reporting.result_files import read_result, read_table
from acf.reporting.row_schemas import HistoryRow
from acf.reporting.schemas import Metrics
from acf.runs.differences import differences
from acf.runs.store import OUTPUTS
from acf.runs.stored import NO_PARTS, StoredRun, stored_runs
from acf.stages.named_recipes import NamedRecipes, stored_subject
from acf.stages.project import HISTORY, Project

CURRENT, GONE, UNKNOWN, UNCLEAR = "current", "not in params.yaml", "unknown", "unclear"


@dataclass(frozen=True)
class Entry:
    """One stored run.

    Attributes:
        recipe: its name.
        stage: what computes it; None where that is not known, as of runs of earlier versions.
        experiment: of the run, as are `variant` and `seed`; None where there is none.
        variant: see `experiment`.
        seed: see `experiment`.
        state: running, interrupted, or finished.
        step: steps done at the last checkpoint, of `steps`; None where that is not noted.
        steps: see `step`.
        bits_per_dim: the last that was measured: of the last validation while training, of test images by evaluation.
        bytes: size on disk.
        age: seconds since the last change.
        named: "current" if params.yaml and the present code name this recipe; else what differs: "settings changed",
            "input changed", "code changed", or several of them; "not in params.yaml"; "unclear" where the current
            recipe cannot be said; "unknown" where it is not known what the run was made of.
        problem: what is damaged, or why it is unclear; None if nothing is.
    """

    recipe: str
    stage: str | None
    experiment: str | None
    variant: str | None
    seed: int | None
    state: str
    step: int | None
    steps: int | None
    bits_per_dim: float | None
    bytes: int
    age: float
    named: str
    problem: str | None = None

    def as_dict(self) -> dict[str, object]:
        """Return the fields as values that JSON can hold."""
        return asdict(self)

    @property
    def title(self) -> str:
        """Its stage and run, or its recipe where they are not known."""
        parts = (self.experiment, self.variant, None if self.seed is None else f"seed{self.seed}")
        return f"{self.stage} {'/'.join(filter(None, parts))}" if self.stage else self.recipe


def list_runs(root: Path = Path(".")) -> list[Entry]:
    """Return all runs in the run store, those that changed last first.

    Raises:
        ConfigError: this is no project, or its params.yaml cannot be used.
    """
    project = Project(root)
    current = NamedRecipes(project)
    return [_entry(run, current) for run in stored_runs(root)]


def _entry(run: StoredRun, current: NamedRecipes) -> Entry:
    named, reason = _named(run, current)
    faults = [fault for fault in run.faults if fault != NO_PARTS]
    value, reached = None, run.reached
    try:
        value = _bits_per_dim(run)
    except AcfError as error:
        faults.append(str(error))
    experiment, variant, seed = run.identity
    return Entry(
        recipe=run.recipe,
        stage=run.stage,
        experiment=experiment,
        variant=variant,
        seed=seed,
        state=run.state,
        step=reached.step if reached else None,
        steps=reached.steps if reached else None,
        bits_per_dim=value,
        bytes=run.bytes,
        age=run.age,
        named=named,
        problem="; ".join([*faults, *filter(None, [reason])]) or None,
    )


def _named(run: StoredRun, current: NamedRecipes) -> tuple[str, str | None]:
    """Return whether params.yaml and the code name this recipe, in words, and why that cannot be said."""
    if run.parts is None:
        return (CURRENT if run.recipe in current.recipes else UNKNOWN), None
    subject = stored_subject(run)
    if subject is None:
        return UNKNOWN, f"this version of acf has no stage {run.stage} of such runs"
    stage = str(run.stage)
    if not current.names(stage, subject):
        return GONE, None
    try:
        found = differences(run.parts, current.parts(stage, subject))
    except AcfError as error:
        return UNCLEAR, str(error)
    kinds = dict.fromkeys(one.kind for one in found)
    return (f"{', '.join(kinds)} changed" if kinds else CURRENT), None


def _bits_per_dim(run: StoredRun) -> float | None:
    """Return the last bits/dim that was measured.

    Raises:
        AcfError: a kept output is damaged.
    """
    outputs, command = run.folder / OUTPUTS, f"acf {run.stage} again"
    if HISTORY in run.kept:
        rows = read_table(outputs / HISTORY, HistoryRow, command, more_columns=True)
        validated = [row.validation_bits_per_dim for row in rows if row.validation_bits_per_dim is not None]
        return validated[-1] if validated else rows[-1].train_bits_per_dim
    if "metrics.json" in run.kept:
        return read_result(outputs / "metrics.json", Metrics, {}, command).bits_per_dim
    return run.reached.bits_per_dim if run.reached else None


def show(entries: Sequence[Entry]) -> None:
    """Print one line per run; wide enough for any line where it is not a terminal."""
    if not entries:
        print("no runs: nothing has been computed in this project yet")
        return
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console = Console(markup=False, emoji=False, highlight=False, width=400)
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "run", "state", "bits/dim", "size", "age", "named by params.yaml and code", "recipe"):
        table.add_column(column, overflow="fold")
    for entry in entries:
        table.add_row(*map(printable, _cells(entry)))
    console.print(table)
    for entry in entries:
        if entry.problem:
            console.print(printable(f"{entry.recipe}: {entry.problem}"), soft_wrap=True)


def _cells(entry: Entry) -> tuple[str, ...]:
    run = entry.title.partition(" ")[2]
    at = f" at step {entry.step}/{entry.steps}" if entry.step is not None and entry.state != "finished" else ""
    value = "-" if entry.bits_per_dim is None else f"{entry.bits_per_dim:.4f}"
    named = f"{entry.named} (earlier version)" if entry.stage is None and entry.problem is None else entry.named
    cells = (entry.stage or "-", run or "-", entry.state + at, value, size(entry.bytes), duration(entry.age))
    return (*cells, named, entry.recipe)


def printable(text: Any) -> str:
    """Return a text with characters that no terminal shows escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def size(number: int) -> str:
    """Return a number of bytes in words."""
    for unit, bytes_each in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= bytes_each:
            return f"{number / bytes_each:.1f} {unit}"
    return f"{number} bytes"


def duration(seconds: float) -> str:
    """Return a number of seconds in the largest unit of which there are two at least."""
    for unit, seconds_each in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * seconds_each:
            return f"{int(seconds // seconds_each)} {unit}"
    return f"{int(seconds)} seconds"
