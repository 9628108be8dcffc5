"""The faults that the soak injects: each a function of the scene that says whether it struck."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psutil

from tests.soak.disks import fill
from tests.soak.workspace import Engine, Workspace

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
LATEST = 30.0
"""Seconds within which there must be something to strike."""


@dataclass
class Scene:
    """What a fault may act on.

    Attributes:
        workspace: the project.
        engine: the last that was started; of a fault at rest, one that has ended.
    """

    workspace: Workspace
    engine: Engine

    @property
    def root(self) -> Path:
        return self.workspace.root

    @property
    def random(self) -> Random:
        return self.workspace.random

    def wait_for_stage(self, command: str = "") -> psutil.Process | None:
        """Return a running process of `acf`, None if there is none until the engine ends."""
        end = time.monotonic() + LATEST
        while self.engine.running and time.monotonic() < end:
            if running := self.workspace.stages(command):
                return self.random.choice(running)
            time.sleep(0.05)
        return None

    def wait_for_checkpoint(self) -> Path | None:
        """Return the checkpoint of a training that runs, None if there is none until the engine ends."""
        end = time.monotonic() + LATEST
        while self.engine.running and time.monotonic() < end:
            if self.workspace.stages("train") and (found := self.workspace.checkpoints()):
                return self.random.choice(found)
            time.sleep(0.02)
        return None

    def pause(self, most: float) -> None:
        """Wait for a random time, or until the engine ends."""
        end = time.monotonic() + self.random.uniform(0, most)
        while self.engine.running and time.monotonic() < end:
            time.sleep(0.01)


Strike = Callable[[Scene], bool]
RUNNING: dict[str, Strike] = {}
"""Faults while an engine runs, by kind."""
RESTING: dict[str, Strike] = {}
"""Faults between two starts of an engine, by kind."""


def _running(kind: str) -> Callable[[Strike], Strike]:
    return lambda strike: RUNNING.setdefault(kind, strike)


def _resting(kind: str) -> Callable[[Strike], Strike]:
    return lambda strike: RESTING.setdefault(kind, strike)


def _kill(process: psutil.Process, number: signal.Signals) -> bool:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)
        return True
    return False


def _stage_killer(number: signal.Signals) -> Strike:
    def strike(scene: Scene) -> bool:
        process = scene.wait_for_stage()
        scene.pause(8)
        return process is not None and _kill(process, number)

    return strike


def _training_killer(number: signal.Signals) -> Strike:
    def strike(scene: Scene) -> bool:
        if scene.wait_for_checkpoint() is None:
            return False
        scene.pause(3)
        running = scene.workspace.stages("train")
        return bool(running) and _kill(scene.random.choice(running), number)

    return strike


def _engine_killer(number: signal.Signals) -> Strike:
    def strike(scene: Scene) -> bool:
        scene.pause(25)
        return scene.engine.hit(number, group=scene.random.random() < 0.5)

    return strike


for _signal in SIGNALS:
    _running(f"stage: {_signal.name}")(_stage_killer(_signal))
    _running(f"training with a checkpoint: {_signal.name}")(_training_killer(_signal))
    _running(f"engine: {_signal.name}")(_engine_killer(_signal))


@_running("engine: another at once")
def _another_engine(scene: Scene) -> bool:
    scene.pause(10)
    if not scene.engine.running:
        return False
    other = scene.workspace.start("snakemake" if scene.engine.name == "dvc" else "dvc")
    other.wait()
    return True


@_resting("engine: the other one before")
def _engine_before(scene: Scene) -> bool:
    scene.workspace.start("snakemake" if scene.engine.name == "dvc" else "dvc").finish()
    return True


def _flip(content: bytes, source: Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(source.randint(1, 3)):
        damaged[source.randrange(len(damaged))] ^= 1 << source.randrange(8)
    return bytes(damaged)


DAMAGES: dict[str, Callable[[bytes, Random], bytes | None]] = {
    "flipped bits": _flip,
    "truncated": lambda content, source: content[: source.randrange(len(content))],
    "emptied": lambda content, source: b"",
    "removed": lambda content, source: None,
}


def _damage(path: Path, kind: str, source: Random) -> bool:
    """Damage a file in place, and say whether it was there."""
    if not path.is_file() or not (content := path.read_bytes()):
        return False
    damaged = DAMAGES[kind](content, source)
    path.unlink() if damaged is None else path.write_bytes(damaged)
    return True


def _checkpoint_damager(kind: str) -> Strike:
    def strike(scene: Scene) -> bool:
        """Kill a training, and damage its checkpoints before it goes on."""
        path = scene.wait_for_checkpoint()
        if path is None:
            return False
        scene.pause(2)
        for process in scene.workspace.stages("train"):
            _kill(process, signal.SIGKILL)
        both = scene.random.random() < 0.3
        paths = [path, path.with_name("checkpoint.before.pt")] if both else [path]
        return any([_damage(each, kind, scene.random) for each in paths])

    return strike


def _kept_damager(kind: str) -> Strike:
    def strike(scene: Scene) -> bool:
        """Damage a kept output, or the list of them, and remove the model that was made of it."""
        kept = sorted([*scene.root.glob(".acf/runs/*/outputs/*"), *scene.root.glob(".acf/runs/*/done.json")])
        if not kept:
            return False
        _empty(scene.root / "models")
        _empty(scene.root / ".dvc/cache")
        return _damage(scene.random.choice(kept), kind, scene.random)

    return strike


for _kind in DAMAGES:
    _running(f"checkpoint: {_kind}")(_checkpoint_damager(_kind))
    _resting(f"kept output: {_kind}")(_kept_damager(_kind))


def _empty(folder: Path) -> bool:
    """Remove what is in a folder, which may be a disk of its own; say whether there was something."""
    entries = list(folder.iterdir()) if folder.is_dir() else []
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    return bool(entries)


def _deleter(*folders: str) -> Strike:
    return lambda scene: any([_empty(scene.root / folder) for folder in folders])


CACHES = (".acf/runs", ".acf", ".dvc/cache", ".dvc/tmp", ".snakemake", "models", "samples", "results")
for _folder in CACHES:
    _resting(f"deleted: {_folder}")(_deleter(_folder))
_resting("deleted: everything computed")(_deleter(".acf/runs", ".dvc/cache", "models", "samples", "results", "reports"))


@_resting("deleted: one run of .acf/runs")
def _delete_one_run(scene: Scene) -> bool:
    found = sorted(scene.root.glob(".acf/runs/*/"))
    _empty(scene.root / "models")
    return bool(found) and _empty(scene.random.choice(found))


@_running("deleted while stages run: .acf/runs")
def _delete_runs_at_work(scene: Scene) -> bool:
    if scene.wait_for_stage("train") is None:
        return False
    scene.pause(6)
    return _empty(scene.root / ".acf/runs")


def _disk_filler(folder: str) -> Strike:
    def strike(scene: Scene) -> bool:
        if scene.wait_for_stage("train") is None:
            return False
        scene.pause(6)
        with fill(scene.root / folder):
            end = time.monotonic() + scene.random.uniform(1, 10)
            while scene.engine.running and time.monotonic() < end:
                time.sleep(0.05)
        return True

    return strike


if os.geteuid() == 0:  # only root may mount a small disk
    for _folder in (".acf/runs", "models"):
        _running(f"disk full: {_folder}")(_disk_filler(_folder))


@_resting("settings: changed and put back")
def _change_settings(scene: Scene) -> bool:
    """Build a while with another learning rate, or to the end."""
    before = scene.workspace.study
    scene.workspace.write_study(before.replace("learning_rate: 0.001", "learning_rate: 0.002"))
    engine = scene.workspace.start(scene.random.choice(["dvc", "snakemake"]))
    if scene.random.random() < 0.7:
        Scene(scene.workspace, engine).pause(40)
        engine.hit(signal.SIGINT, group=True)
    engine.wait()
    scene.workspace.write_study(before)
    return True
