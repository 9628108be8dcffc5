"""A copy of this project with a study of seconds, in which the real engines run."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Self

import yaml

from acf.stages.graph import write_graph
from tests.conftest import ANALYSES
from tests.pipeline import forks

SOURCE = Path(__file__).parents[2]
COPIED = (
    "dvc.yaml",
    "Snakefile",
    "workflow",
    "src/acf",
    ".dvcignore",
    ".gitignore",
    ".dvc/config",
    ".dvc/.gitignore",
    ".dvc/plots",
)
TIMES = ("evaluate_seconds", "images_per_second", "train_seconds", "recipe")
"""Keys of metrics.json with a time; `recipe` is among them since config.json, which it covers, has the seconds."""

MODEL = {"blocks": [1], "idim": 8, "fc_blocks": 1, "fc_width": 8, "attention": {"heads": 2}}
TRAINING = {"steps": 4, "warmup_steps": 2, "batch_size": 16, "validation_images": 16, "validate_every": 4}
DIGITS = {
    "dataset": "digits",
    "seeds": [0],
    "model": {},
    "training": {},
    "evaluation": {},
    "sampling": {},
    "analyses": {},
    "reporting": {},
    "variants": {"resflow": {}, "acf-l2": {"training": {"learning_rate": 1e-3}}},
}
STUDY = {
    "defaults": {
        "model": MODEL,
        "training": TRAINING,
        "evaluation": {"draws": 1, "images": 16},
        "sampling": {"samples": 4, "reconstructions": 2},
        "analyses": ANALYSES,
        "reporting": {},
    },
    "datasets": {"digits": {}, "digits-4": {"source": "digits", "average": 2}, "fashion-mnist": {}},
    "variants": {"resflow": {}, "acf-l2": {"model": {"attention": {"kind": "l2"}}}},
    "experiments": {
        "digits": DIGITS,
        "digits-wide": {**DIGITS, "dataset": "digits-4", "model": {"idim": 12}, "variants": {"resflow": {}}},
        "fashion-mnist": {**DIGITS, "dataset": "fashion-mnist", "variants": {"resflow": {}}},
    },
}

ENGINES = ("dvc", "snakemake")
PROGRAMS = (*ENGINES, "acf")

ACF = f"""#!/bin/sh
echo "$@" >> calls.txt
exec {sys.executable} -m acf "$@"
"""


class Project:
    """A copy whose own code runs (PYTHONPATH), and whose `acf` notes each call in calls.txt.

    Args:
        root: where the copy is made.
        source: what is copied.
        server: address of `forks.forking`, for programs that start in no time; by default each is started anew.
    """

    def __init__(self, root: Path, source: Path = SOURCE, server: str | None = None) -> None:
        self.root, self._server = root, server
        for name in COPIED:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            if (source / name).is_dir():
                shutil.copytree(source / name, root / name)  # compiled modules too, of the same age as theirs
            else:
                shutil.copy2(source / name, root / name)
        study = json.loads(json.dumps(STUDY))  # without what experiments share, which YAML would write as anchors
        (root / "params.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
        write_graph(root)
        (root / "bin").mkdir()
        (root / "bin" / "acf").write_text(forks.client(server) if server else ACF)
        (root / "bin" / "acf").chmod(0o755)
        self._run("git", "init", "--quiet")

    def dvc(self, *experiments: str) -> list[str]:
        """Build reports by DVC, by default that on digits; return the calls of `acf` this took, sorted."""
        targets = [f"report@{name}" for name in experiments or ("digits",)]
        return self._calls("dvc", "repro", *targets)

    def snakemake(self, *experiments: str) -> list[str]:
        """Build reports by Snakemake, by default that on digits; return the calls of `acf` this took, sorted."""
        targets = [f"reports/{name}/index.html" for name in experiments or ("digits",)]
        return self._calls("snakemake", "--cores", "2", "--", *targets)

    def snakemake_report(self) -> Path:
        """Return the report that Snakemake makes of what it has built, unpacked."""
        said = self._run("snakemake", "--report", "report.zip", "--", "reports/digits/index.html")
        assert "warn" not in said.lower(), said
        shutil.unpack_archive(self.root / "report.zip", self.root / "report")
        return self.root / "report"

    @contextmanager
    def changed(self, key: str, value: Any) -> Iterator[None]:
        """Set a key of params.yaml, and put the file back afterwards."""
        path = self.root / "params.yaml"
        before = path.read_text()
        self.set(key, value)
        try:
            yield
        finally:
            path.write_text(before)

    def set(self, key: str, value: Any) -> None:
        """Set a key of params.yaml."""
        path = self.root / "params.yaml"
        study = yaml.safe_load(path.read_text())
        *parents, last = key.split(".")
        section = study
        for name in parents:
            section = section[name]
        section[last] = value
        path.write_text(yaml.safe_dump(study, sort_keys=False))

    def text(self, path: str) -> str:
        """Return the text of a file."""
        return (self.root / path).read_text()

    def metrics(self, variant: str) -> dict[str, Any]:
        """Return what was measured on digits, times and threads (in the device's name) left out."""
        metrics = json.loads(self.text(f"results/digits/{variant}/seed0/metrics.json"))
        return {key: value for key, value in metrics.items() if key not in (*TIMES, "device")}

    def _calls(self, *command: str) -> list[str]:
        log = self.root / "calls.txt"
        log.unlink(missing_ok=True)
        self._run(*command)
        return sorted(log.read_text().splitlines()) if log.exists() else []

    def copy(self, root: Path) -> Self:
        """Return a copy of the project with all that it has built, of the same age."""
        shutil.copytree(self.root, root, symlinks=True)
        return self._at(root)

    def commit(self) -> None:
        """Commit what git does not ignore."""
        self._run("git", "add", "--all")
        self._run("git", "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "-m", "test")

    def clone(self, root: Path) -> Self:
        """Return a clone of what is committed, with no more than git has."""
        self._run("git", "clone", "--quiet", ".", str(root))
        return self._at(root)

    def _at(self, root: Path) -> Self:
        other = object.__new__(type(self))
        other.root, other._server = root, self._server
        return other

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace the first `old` in a file."""
        text = self.text(path)
        assert old in text
        (self.root / path).write_text(text.replace(old, new, 1))

    def output(self, *command: str) -> str:
        """Return what a command that succeeds prints; the engines are those of this environment."""
        return self._run(*command)

    def refused(self, *command: str) -> str:
        """Return what a command that fails prints."""
        done = subprocess.run(
            _of_environment(command), cwd=self.root, env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode != 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a command, in a process group of its own, which it leads."""
        return subprocess.Popen(
            _of_environment(command), cwd=self.root, env=self._environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def wait_for(self, path: str, seconds: float = 120) -> None:
        """Wait until a file is there."""
        end = time.monotonic() + seconds
        while not (self.root / path).exists():
            assert time.monotonic() < end, f"no {path} after {seconds} s"
            time.sleep(0.1)

    @property
    def _environment(self) -> dict[str, str]:
        places = {"PYTHONPATH": str(self.root / "src"), "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}"}
        return {**os.environ, **places, "OMP_NUM_THREADS": "1", "ACF_DEVICE": "cpu"}

    def _run(self, *command: str) -> str:
        if self._server and command[0] in PROGRAMS:
            code, output = self._forked(*command)
        else:
            done = subprocess.run(
                _of_environment(command), cwd=self.root, env=self._environment, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
            code, output = done.returncode, done.stdout
        assert code == 0, output[-6000:]
        return output

    def _forked(self, program: str, *arguments: str) -> tuple[int, str]:
        assert self._server is not None
        with TemporaryFile("w+") as output, open(os.devnull) as nothing:
            files = (nothing.fileno(), output.fileno(), output.fileno())
            code = forks.call(self._server, program, arguments, self.root, self._environment, files)
            output.seek(0)
            return code, output.read()


def _of_environment(command: tuple[str, ...]) -> tuple[str, ...]:
    return (sys.executable, "-m", *command) if command[0] in ENGINES else command
