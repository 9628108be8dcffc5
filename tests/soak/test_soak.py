"""A study built under random faults, round after round, ends with the results of an undisturbed one.

`pytest -m soak -s` takes 20 minutes on two cores. SOAK_MINUTES sets another time, SOAK_SEED the seed of the faults (whose
moments depend on the machine too), and SOAK_RESULT a file for the numbers.
"""

import os
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.soak.disks import small_disks
from tests.soak.faults import RESTING, RUNNING, Scene
from tests.soak.results import differences, results
from tests.soak.tally import Tally
from tests.soak.workspace import Workspace

MINUTES = float(os.environ.get("SOAK_MINUTES", "20"))
MOST_FAULTS = 5
"""In one round."""
MESSAGE = re.compile(r"(error|interrupted|warning)\b.{,500}|  .{,300}|all at once: .{,100}")
"""A line that `acf` may write to standard error; the indented ones are a report's list of missing files."""


@pytest.fixture
def seed() -> int:
    given = os.environ.get("SOAK_SEED")
    return int(given) if given else random.SystemRandom().randrange(10**6)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path / "soak")
    with small_disks([workspace.root / ".acf/runs", workspace.root / "models"]):
        try:
            yield workspace
        finally:
            workspace.kill_everything()


@pytest.mark.soak
def test_a_study_built_under_faults_has_the_undisturbed_results(
    seed: int, workspace: Workspace, tmp_path: Path
) -> None:
    print(f"\nSOAK_SEED={seed}")
    undisturbed = Workspace(tmp_path / "undisturbed")
    undisturbed.start("snakemake").finish()
    expected = results(undisturbed.root)
    source, tally = random.Random(seed), Tally(seed, [*RUNNING, *RESTING])
    start = time.monotonic()
    try:
        while time.monotonic() - start < 60 * MINUTES:
            _round(workspace, source, tally, expected)
    finally:
        tally.show()
    if path := os.environ.get("SOAK_RESULT"):
        tally.write(Path(path), minutes=round((time.monotonic() - start) / 60, 1))


def _round(workspace: Workspace, source: random.Random, tally: Tally, expected: dict[str, Any]) -> None:
    """Build the study under a few faults, then to the end, and compare."""
    name = source.choice(["dvc", "snakemake"])
    scene = Scene(workspace, source, _start(workspace, name, tally))
    for _ in range(source.randint(2, MOST_FAULTS)):
        if scene.engine.running:
            _strike(source.choice(list(RUNNING)), RUNNING, scene, tally)
        else:
            if source.random() < 0.6:
                _strike(source.choice(list(RESTING)), RESTING, scene, tally)
            scene.engine = _start(workspace, source.choice(["dvc", "snakemake"]), tally)
    if scene.engine.wait() != 0:
        scene.engine = _start(workspace, source.choice(["dvc", "snakemake"]), tally)
        scene.engine.finish()
    workspace.settle()
    _check_messages(workspace, tally)
    found = list(differences(results(workspace.root), expected))
    assert not found, f"after {tally.of_round}: {found[:20]}"
    tally.survived()


def _start(workspace: Workspace, name: str, tally: Tally) -> Any:
    tally.starts += 1
    print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
    return workspace.start(name)


def _strike(kind: str, faults: dict[str, Any], scene: Scene, tally: Tally) -> None:
    if faults[kind](scene):
        tally.injected(kind)
        print(f"{time.strftime('%H:%M:%S')}   {kind}", flush=True)


def _check_messages(workspace: Workspace, tally: Tally) -> None:
    """Require that all that stages said of faults were messages for people."""
    for name, text in workspace.messages().items():
        print(f"  {name}: {text.strip()}", flush=True)
        for line in text.splitlines():
            assert MESSAGE.fullmatch(line), f"after {tally.of_round}, {name} wrote:\n{text}"
            tally.messages[line] += 1
