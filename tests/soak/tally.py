"""What the soak counts, and says at its end."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


class Tally:
    """Faults by kind: how many struck, and after how many of them all results were the undisturbed ones.

    Attributes:
        seed: of the faults.
        rounds: that ended with the undisturbed results.
        starts: of engines.
    """

    def __init__(self, seed: int, kinds: list[str]) -> None:
        self.seed = seed
        self.rounds = self.starts = 0
        self.of_round: list[str] = []
        self.messages: Counter[str] = Counter()
        self._injected = dict.fromkeys(kinds, 0)
        self._survived = dict.fromkeys(kinds, 0)

    def injected(self, kind: str) -> None:
        self._injected[kind] += 1
        self.of_round.append(kind)

    def survived(self) -> None:
        """Count the faults of a round that ended well."""
        self.rounds += 1
        for kind in self.of_round:
            self._survived[kind] += 1
        self.of_round = []

    def as_dict(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "rounds": self.rounds,
            "starts": self.starts,
            "messages": self.messages.total(),
            "faults": {
                kind: {"injected": number, "survived": self._survived[kind]} for kind, number in self._injected.items()
            },
        }

    def write(self, path: Path, **facts: Any) -> None:
        path.write_text(json.dumps({**facts, **self.as_dict()}, indent=1) + "\n", encoding="utf-8")

    def show(self) -> None:
        table = Table(title=f"{self.rounds} rounds, {self.starts} starts of engines, seed {self.seed}")
        for heading in ("fault", "injected", "survived"):
            table.add_column(heading)
        for kind, number in self._injected.items():
            table.add_row(kind, str(number), str(self._survived[kind]))
        Console(width=100).print(table)
