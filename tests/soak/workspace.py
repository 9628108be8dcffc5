"""A project in which a study is built again and again, its engines, its stages, and what these said."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

import psutil
import yaml

from acf.stages.baselines import baselines
from acf.stages.evaluate import evaluate
from acf.stages.graph import write_graph
from acf.stages.prepare import prepare
from acf.stages.report import report
from acf.stages.sample import sample
from acf.stages.train import train
from tests.pipeline.project import DIGITS, MODEL, STUDY, TRAINING, Project

TRAININGS = {**TRAINING, "steps": 120, "validate_every": 10}
"""Some seconds, so as to be hit, with a checkpoint every half a second or so."""
VARIANT = "acf-l2"
COMMANDS = {
    "dvc": ["dvc", "repro", "report@digits"],
    "snakemake": ["snakemake", "--cores", "2", "--rerun-incomplete", "--", "reports/digits/index.html"],
}
UNLOCK = ["snakemake", "--unlock", "--", "reports/digits/index.html"]
LONGEST = 1200.0
"""Seconds after which an engine hangs, on a machine that is busy with other things too."""
ACF = f"""#!/bin/sh
exec {sys.executable} -m acf "$@" 2>> "$ACF_ERRORS/$1-$$"
"""


class Workspace:
    """A project with an `acf` whose standard error is kept.

    Attributes:
        root: top folder of the project.
        processes: how many may share a training; those of each start of an engine are drawn from `random`.
        random: decides what happens in the workspace.
    """

    def __init__(self, folder: Path, random: Random, processes: Sequence[int] = (1,)) -> None:
        self.root = folder / "project"
        self.random = random
        self.processes = processes
        self._errors = folder / "errors"
        self._errors.mkdir(parents=True)
        Project(self.root)
        (self.root / "bin" / "acf").write_text(ACF)
        digits = {**DIGITS, "variants": {VARIANT: DIGITS["variants"][VARIANT]}}
        study = {**STUDY, "experiments": {"digits": digits}}
        study["defaults"] = {**STUDY["defaults"], "model": MODEL, "training": TRAININGS}
        self.write_study(yaml.safe_dump(study, sort_keys=False))
        write_graph(self.root)

    @property
    def study(self) -> str:
        """Content of params.yaml."""
        return (self.root / "params.yaml").read_text()

    def write_study(self, content: str) -> None:
        (self.root / "params.yaml").write_text(content)

    def build_undisturbed(self) -> None:
        """Run the stages one after the other, in this process."""
        run = ("digits", VARIANT, 0, "cpu", self.root)
        prepare("digits", self.root / "data")
        for stage in (train, evaluate, sample):
            stage(*run)
        baselines("digits", self.root)
        report("digits", self.root)

    def start(self, name: str) -> "Engine":
        """Start an engine on the report; the lock of a Snakemake that was killed is removed as it asks for."""
        locks = self.root / ".snakemake/locks"
        if name == "snakemake" and not self._found("snakemake") and locks.is_dir() and any(locks.iterdir()):
            Engine("unlock", UNLOCK, self).finish()
        return Engine(name, COMMANDS[name], self)

    def stages(self, command: str = "") -> list[psutil.Process]:
        """Return the running processes of `acf`, or those of one of its commands."""
        return [p for p in self._found("acf") if not command or command in p.info["cmdline"]]

    def checkpoints(self) -> list[Path]:
        """Return the last checkpoint of each training that is under way."""
        return sorted(self.root.glob(".acf/runs/*/checkpoint.pt"))

    def settle(self) -> None:
        """Wait until the stages have ended that a killed engine left behind."""
        end = time.monotonic() + LONGEST
        while running := self.stages():
            assert time.monotonic() < end, f"hanging: {[process.info['cmdline'] for process in running]}"
            time.sleep(0.2)

    def messages(self) -> dict[str, str]:
        """Return what was written to standard error since the last call, by command and process; nothings left out."""
        found = {path.name: path.read_text(errors="replace") for path in sorted(self._errors.iterdir())}
        for name in found:
            (self._errors / name).unlink()
        return {name: text for name, text in found.items() if text}

    def kill_everything(self) -> None:
        """End all processes that work in the project."""
        for process in self._found():
            process.kill()

    def environment(self) -> dict[str, str]:
        """Variables for the engines."""
        places = {"PYTHONPATH": str(self.root / "src"), "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}"}
        processes = str(self.random.choice(self.processes))
        settings = {"OMP_NUM_THREADS": "1", "ACF_DEVICE": "cpu", "ACF_PROCESSES": processes}
        return {**os.environ, **places, **settings, "ACF_ERRORS": str(self._errors)}

    def _found(self, *words: str) -> list[psutil.Process]:
        """Return the processes in the project's folder that have one of the words, or `-m WORD`, in their command."""
        found = []
        for process in psutil.process_iter(["cmdline", "cwd"]):
            line = process.info["cmdline"] or []
            alive = process.info["cwd"] == str(self.root) and process.pid != os.getpid()
            if alive and line and (not words or any(word in line[:5] for word in words)):
                found.append(process)
        return found


class Engine:
    """An engine at work in a workspace, in a session of its own.

    Attributes:
        name: of the engine.
    """

    def __init__(self, name: str, command: Sequence[str], workspace: Workspace) -> None:
        self.name = name
        self._output = workspace.root.parent / f"{name}-{time.monotonic_ns()}.log"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=workspace.root,
                env=workspace.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """The end of what it printed."""
        return self._output.read_text(errors="replace")[-4000:]

    def hit(self, number: signal.Signals, group: bool = False) -> bool:
        """Send a signal to the engine, or as a terminal does to all that it has started too; say if it was there."""
        if not self.running:
            return False
        if group:
            os.killpg(self._process.pid, number)
        else:
            self._process.send_signal(number)
        return True

    def wait(self, seconds: float = LONGEST) -> int:
        """Wait for its end and return its exit code."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} hangs:\n{self.output}") from None

    def finish(self) -> None:
        """Wait for its end, which has to be a success."""
        code = self.wait()
        assert code == 0, f"{self.name} failed undisturbed with exit code {code}:\n{self.output}"
