"""What the environment says of a process among several."""

from collections.abc import Callable
from pathlib import Path

import pytest

from acf.errors import ConfigError
from acf.runs.ranks import Place, ranks_of_environment

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "node1", "MASTER_PORT": "1234"}
SLURM = {
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "node7",
    "SLURM_JOB_ID": "100023",
}


def test_alone_without_variables_and_as_one_task_of_slurm() -> None:
    assert Place.of_environment({}) is None
    assert Place.of_environment(SLURM | {"SLURM_STEP_NUM_TASKS": "1"}) is None
    # A batch script has these, and is one process.
    assert Place.of_environment({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}) is None


def test_torchrun_and_slurm_name_the_place() -> None:
    assert Place.of_environment(TORCHRUN) == Place(3, 4, 1, "node1", 1234)
    assert Place.of_environment(SLURM) == Place(3, 4, 1, "node7", 20023)
    assert Place.of_environment(SLURM | {"MASTER_ADDR": "a", "MASTER_PORT": "99"}) == Place(3, 4, 1, "a", 99)


def test_the_first_of_several_nodes_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several = SLURM | {"SLURM_STEP_NODELIST": "node[7-8]"}
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"first of the nodes node\[7-8\]; set MASTER_ADDR"):
        Place.of_environment(several)
    (tmp_path / "scontrol").write_text('#!/bin/sh\n[ "$3" = "node[7-8]" ] && echo node7 && echo node8\n')
    (tmp_path / "scontrol").chmod(0o755)
    found = Place.of_environment(several)
    assert found is not None
    assert found.address == "node7"


@pytest.mark.parametrize(
    "damage",
    [
        lambda e: e | {"RANK": "4"},
        lambda e: e | {"RANK": "-1"},
        lambda e: e | {"WORLD_SIZE": "many"},
        lambda e: {name: value for name, value in e.items() if name != "LOCAL_RANK"},
        lambda e: e | {"MASTER_PORT": ""},
    ],
)
def test_variables_that_cannot_be(damage: Callable[[dict[str, str]], dict[str, str]]) -> None:
    with pytest.raises(ConfigError, match="start all by"):
        Place.of_environment(damage(TORCHRUN))


def test_a_first_machine_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (TORCHRUN | {"MASTER_ADDR": "nobody.invalid"}).items():
        monkeypatch.setenv(name, value)
    said = pytest.raises(ConfigError, match=r"'nobody\.invalid', which this machine does not know; set MASTER_ADDR")
    with said, ranks_of_environment():
        pass
