"""The two graphs in one form: what each command reads, which parameters it depends on, and what it writes."""

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Stage:
    inputs: frozenset[str]
    parameters: str
    outputs: frozenset[str]
    threads: int = 1

    @property
    def code(self) -> frozenset[str]:
        """The inputs that are code, or hashes of it."""
        return frozenset(path for path in self.inputs if path.startswith(("src/", "code/")))

    @property
    def files(self) -> frozenset[str]:
        """The inputs that are no code."""
        return self.inputs - self.code


def dvc_graph(root: Path) -> dict[str, Stage]:
    """Return the stages of dvc.yaml by command; a folder among the inputs stands for the files in it."""
    from dvc.dependency import ParamsDependency
    from dvc.repo import Repo

    with Repo(root) as repo:
        stages = [stage for stage in repo.index.stages if stage.cmd]
        produced = {out.def_path for stage in stages for out in stage.outs}
        study = yaml.safe_load((root / "params.yaml").read_text())  # once: DVC would read it for every stage
        graph = {}
        for stage in stages:
            files = [dep for dep in stage.deps if not isinstance(dep, ParamsDependency)]
            params = [dep for dep in stage.deps if isinstance(dep, ParamsDependency)]
            values = {
                key: reduce(lambda part, name: part[name], key.split("."), study) for d in params for key in d.params
            }
            graph[stage.cmd] = Stage(
                frozenset(f for dep in files for f in _files(root, dep.def_path, produced)),
                json.dumps(values, sort_keys=True),
                frozenset(out.def_path for out in stage.outs),
            )
        assert len(graph) == len(stages), "two stages run the same command"
        return graph


def _files(root: Path, path: str, produced: set[str]) -> set[str]:
    if path in produced:
        return {path}
    if path.endswith(".py"):
        return {path}
    if path.startswith("src/"):
        below = (p for p in (root / path).rglob("[!.]*") if p.is_file() and p.suffix != ".pyc")
        return {p.relative_to(root).as_posix() for p in below}
    below_produced = {out for out in produced if out.startswith(path + "/")}
    assert below_produced, f"{path} is an input that no stage writes"
    return below_produced


SNAKEMAKE = """
import json, sys
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.settings.types import DAGSettings, OutputSettings, ResourceSettings

with SnakemakeApi(OutputSettings(dryrun=True)) as api:
    workflow = api.workflow(
        resource_settings=ResourceSettings(cores=64), snakefile=Path("Snakefile"), workdir=Path(sys.argv[2])
    )
    workflow.dag(DAGSettings(forceall=True)).printd3dag()
    jobs = [
        {"rule": job.rule.name, "command": job.shellcmd, "log": list(map(str, job.log)),
         "inputs": list(map(str, job.input)), "outputs": list(map(str, job.output)), "threads": job.threads,
         "stamp": job.input.stamp}
        for job in workflow._workflow.dag.jobs if not job.rule.norun
    ]
Path(sys.argv[1]).write_text(json.dumps(jobs))
"""


def snakemake_graph(root: Path, scratch: Path, directory: Path | None = None) -> dict[str, Stage]:
    """Return the jobs of the Snakefile's default target by command, less the copy of its output to a log and variables.

    Their parameters and code are those of the recipe (`acf.stages.current`), which a job reads as its stamp.

    Args:
        root: top folder of the project.
        scratch: folder for this function's own file.
        directory: working folder (`snakemake --directory`), by default `root`.
    """
    target, directory = scratch / "jobs.json", directory or root
    result = subprocess.run(
        [sys.executable, "-c", SNAKEMAKE, str(target), str(directory)],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert target.exists(), result.stderr
    graph = {}
    for job in json.loads(target.read_text()):
        command = job["command"].removesuffix(f" 2>&1 | tee {job['log'][0]}").rpartition("; ")[2]
        inputs = frozenset(job["inputs"]) - {job["stamp"]}
        graph[command] = Stage(inputs, "", frozenset(job["outputs"]), job["threads"])
    return graph
