"""A small study on a cluster: Snakemake with the profile `slurm`, its jobs, and the trainings that run in them."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.pipeline.project import Project

PATIENCE = 600.0
"""Seconds for anything that is waited for; a busy machine is slow, and nothing is waited for longer than it takes."""


class ClusterStudy:
    """A project whose jobs run on a cluster.

    Args:
        project: copy of the project with the study.
        cluster: variables that name the cluster.
    """

    def __init__(self, project: Project, cluster: dict[str, str]) -> None:
        self.project = project
        places = {"PYTHONPATH": str(project.root / "src"), "PATH": f"{project.root / 'bin'}:{cluster['PATH']}"}
        self.environment = {**os.environ, **cluster, **places, "OMP_NUM_THREADS": "1"}
        self.environment.pop("ACF_DEVICE", None)
        self.output = project.root / "snakemake.txt"

    def snakemake(self, *targets: str) -> "subprocess.Popen[bytes]":
        """Start Snakemake with the profile; there is no accounting database to ask for the states of jobs."""
        options = ["--workflow-profile", "workflow/profiles/slurm", "--slurm-status-command", "squeue"]
        # Seconds instead of minutes, for jobs of seconds on a local disk.
        options += ["--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "5"]
        with self.output.open("wb") as file:
            return subprocess.Popen(
                [sys.executable, "-m", "snakemake", *options, "--", *targets],
                cwd=self.project.root, env=self.environment, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip

    def jobs(self, rule: str) -> list[dict[str, str]]:
        """Return SLURM's description of every job of a rule, those that have ended too, in order of submission."""
        text = self.command("scontrol", "show", "job", "--oneliner")
        jobs = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in text.splitlines()]
        of_rule = [job for job in jobs if job.get("Comment", "").startswith(f"rule_{rule}_")]
        return sorted(of_rule, key=lambda job: int(job["JobId"]))

    def set_minutes_left(self, job: str) -> None:
        """Set the time limit of a running job to some two minutes from now."""
        clock = re.search(r"RunTime=(\d+):(\d+):(\d+)", self.command("scontrol", "show", "job", job))
        hours, minutes, seconds = map(int, clock.groups())
        limit = 60 * hours + minutes + (seconds >= 30) + 2
        self.command("scontrol", "update", f"JobId={job}", f"TimeLimit={limit}")

    def command(self, *words: str) -> str:
        """Return what a command that succeeds prints."""
        result = subprocess.run(
            words, cwd=self.project.root, env=self.environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
        return result.stdout

    def log(self, variant: str) -> Path:
        """Return the file with what the last training of a variant has printed."""
        return self.project.root / "logs" / "train" / "digits" / variant / "seed0.log"

    def freeze_trainings(self, variants: Sequence[str], step: int) -> None:
        """Stop the training of each variant by SIGSTOP when it is past a step.

        A stopped process lasts as long as the cluster needs, at no cost; SIGCONT lets it go on, and take its signals.
        """
        frozen = set()

        def all_frozen() -> bool:
            for variant in set(variants) - frozen:
                log = self.log(variant)
                if log.exists() and f"step {step}/" in log.read_text() and (number := self._training(variant)):
                    os.kill(number, signal.SIGSTOP)
                    frozen.add(variant)
            return len(frozen) == len(variants)

        self.until(all_frozen)

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until a condition holds, and return what it returned."""
        end = time.monotonic() + PATIENCE
        while not (met := condition()):
            assert time.monotonic() < end, self.output.read_text()[-5000:]
            time.sleep(0.1)
        return met

    def _training(self, variant: str) -> int:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().decode().split("\0")
                here = (process / "cwd").samefile(self.project.root)
            except OSError:
                continue
            if here and words[1:4] == ["-m", "acf", "train"] and variant in words:
                return int(process.name)
        return 0
