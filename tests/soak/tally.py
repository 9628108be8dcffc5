"""What the soak counts, and says at its end."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.soak.faults import RESTING, RUNNING


class Tally:
    """Faults by kind: how many struck, and after how many of them the results were the undisturbed ones.

    Attributes:
        seed: of the faults.
        rounds: that ended with the undisturbed results.
        rounds_up_to_rounding: those of them whose trainings two processes could share.
        starts: of engines.
        messages: lines that stages wrote to standard error.
        of_round: kinds of the faults of the present round.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rounds = self.rounds_up_to_rounding = self.starts = self.messages = 0
        self.of_round: list[str] = []
        self._injected = dict.fromkeys([*RUNNING, *RESTING], 0)
        self._survived = dict.fromkeys(self._injected, 0)

    def injected(self, kind: str) -> None:
        """Count a fault that struck."""
        self._injected[kind] += 1
        self.of_round.append(kind)

    def survived(self, closely: bool) -> None:
        """Count a round that ended well, and its faults."""
        self.rounds += 1
        self.rounds_up_to_rounding += closely
        for kind in self.of_round:
            self._survived[kind] += 1
        self.of_round = []

    def as_dict(self) -> dict[str, Any]:
        """Return what the result file holds."""
        counts = ("seed", "rounds", "rounds_up_to_rounding", "starts", "messages")
        faults = {kind: {"injected": n, "survived": self._survived[kind]} for kind, n in self._injected.items()}
        return {**{name: getattr(self, name) for name in counts}, "faults": faults}

    def write(self, path: Path, **facts: Any) -> None:
        """Write the result file."""
        path.write_text(json.dumps({**facts, **self.as_dict()}, indent=1) + "\n", encoding="utf-8")

    def show(self) -> None:
        """Print the numbers."""
        table = Table(title=f"{self.rounds} rounds, {self.starts} starts of engines, seed {self.seed}")
        for heading in ("fault", "injected", "survived"):
            table.add_column(heading)
        for kind, number in self._injected.items():
            table.add_row(kind, str(number), str(self._survived[kind]))
        Console(width=100).print(table)
