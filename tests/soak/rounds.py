"""One round of the soak: the study is built under a few faults, then to the end, and its results are compared."""

import re
import time
from collections.abc import Mapping
from typing import Any

from tests.soak.faults import RESTING, RUNNING, Scene, Strike
from tests.soak.results import differences, results
from tests.soak.tally import Tally
from tests.soak.workspace import COMMANDS, Engine, Workspace

FEWEST_FAULTS, MOST_FAULTS = 3, 6
"""That strike while an engine runs, in one round."""
SHARE_AT_REST = 0.7
"""Of the starts of an engine, those before which something is damaged or deleted."""
MESSAGE = re.compile(r"(error|interrupted|warning)\b.{,600}|  .{,300}|all at once: .{,100}")
"""A line that `acf` may write to standard error; the indented ones are a report's list of missing files."""


class Rounds:
    """Rounds in one workspace, counted in `tally`.

    Args:
        expected: the undisturbed results.
        closely: whether they may differ by rounding.
    """

    def __init__(self, workspace: Workspace, tally: Tally, expected: Mapping[str, Any], closely: bool = False) -> None:
        self._workspace, self._random, self._tally = workspace, workspace.random, tally
        self._expected, self._closely = expected, closely

    def play(self) -> None:
        """Play one round.

        Raises:
            AssertionError: an engine fails undisturbed, or hangs; a stage writes something else than messages for
                people; or the results are not the undisturbed ones.
        """
        scene = Scene(self._workspace, self._start())
        for _ in range(self._random.randint(FEWEST_FAULTS, MOST_FAULTS)):
            if not scene.engine.running:
                if self._random.random() < SHARE_AT_REST:
                    self._strike(RESTING, scene)
                scene.engine = self._start()
            self._strike(RUNNING, scene)
        if scene.engine.wait() != 0:
            self._start().finish()
        self._workspace.settle()
        self._check_messages()
        found = list(differences(results(self._workspace.root), self._expected, self._closely))
        assert not found, f"after {self._tally.of_round}: {found[:20]}"
        self._tally.survived(self._closely)

    def _start(self) -> Engine:
        engine = self._workspace.start(self._random.choice(list(COMMANDS)))
        self._tally.starts += 1
        _say(f"{engine.name} in {self._workspace.root}")
        return engine

    def _strike(self, faults: Mapping[str, Strike], scene: Scene) -> None:
        kind = self._random.choice(list(faults))
        if faults[kind](scene):
            self._tally.injected(kind)
            _say(f"  {kind}")

    def _check_messages(self) -> None:
        for name, text in self._workspace.messages().items():
            for line in text.splitlines():
                _say(f"    {name}: {line}")
                assert MESSAGE.fullmatch(line), f"after {self._tally.of_round}, {name} wrote:\n{text}"
                self._tally.messages += 1


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
