"""A study built under random faults, round after round, ends with the results of an undisturbed one.

`pytest -m soak -s` takes 20 minutes on two cores. SOAK_MINUTES sets another time, SOAK_SEED the seed of the faults,
whose moments depend on the machine too, and SOAK_RESULT a file for the numbers.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random, SystemRandom

import pytest

from tests.soak.disks import small_disks
from tests.soak.results import results
from tests.soak.rounds import Rounds
from tests.soak.tally import Tally
from tests.soak.workspace import Workspace

MINUTES = float(os.environ.get("SOAK_MINUTES", "20"))
SEED = int(os.environ.get("SOAK_SEED") or SystemRandom().randrange(10**6))
ROUNDS_PER_SHARED = 4
"""One of so many rounds has trainings that one or two processes share, as it happens."""


@contextmanager
def _disturbed(folder: Path, random: Random, *processes: int) -> Iterator[Workspace]:
    workspace = Workspace(folder, random, processes)
    with small_disks([workspace.root / ".acf/runs", workspace.root / "models"]):
        try:
            yield workspace
        finally:
            workspace.kill_everything()


@pytest.mark.soak
def test_a_study_built_under_faults_has_the_undisturbed_results(tmp_path: Path) -> None:
    print(f"\nSOAK_SEED={SEED}", flush=True)
    random, tally = Random(SEED), Tally(SEED)
    undisturbed = Workspace(tmp_path / "undisturbed", random)
    undisturbed.build_undisturbed()
    expected = results(undisturbed.root)
    start = time.monotonic()
    with _disturbed(tmp_path / "one", random, 1) as one, _disturbed(tmp_path / "two", random, 1, 2) as two:
        alone, shared = Rounds(one, tally, expected), Rounds(two, tally, expected, closely=True)
        try:
            while time.monotonic() - start < 60 * MINUTES:
                (shared if tally.rounds % ROUNDS_PER_SHARED == 1 else alone).play()
        finally:
            tally.show()
    if path := os.environ.get("SOAK_RESULT"):
        tally.write(Path(path), minutes=round((time.monotonic() - start) / 60, 1))
