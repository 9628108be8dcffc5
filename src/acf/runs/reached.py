"""How far a computation has come, in a small file beside its checkpoints, which may be gigabytes."""

import json
import math
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from acf.errors import UnwritableError
from acf.runs.files import write_atomically

NAME = "progress.json"


@dataclass(frozen=True)
class Reached:
    """The state of a training at its last checkpoint.

    Attributes:
        step: steps done.
        steps: steps in all.
        bits_per_dim: of the last validation, or of the last steps of training where there was none yet; None before.
    """

    step: int
    steps: int
    bits_per_dim: float | None


def note_reached(folder: Path, reached: Reached) -> None:
    """Write the state to `folder`, for people to see; no computation depends on it, so a full disk is no error."""
    with suppress(UnwritableError):
        write_atomically(folder / NAME, json.dumps(asdict(reached)).encode())


def read_reached(folder: Path) -> Reached | None:
    """Return the state that was noted in `folder`; None if there is none, or if it is damaged."""
    try:
        found = Reached(**json.loads((folder / NAME).read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    steps, value = (found.step, found.steps), found.bits_per_dim
    whole = all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in steps)
    finite = value is None or (isinstance(value, int | float) and math.isfinite(value))
    return found if whole and finite else None
