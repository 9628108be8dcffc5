"""The command `acf sync`: DVC takes over what Snakemake, or a command by hand, has built."""

import logging
from collections.abc import Sequence
from pathlib import Path

from dvc.exceptions import NotDvcRepoError
from dvc.lock import LockError
from dvc.repo import Repo, lock_repo
from dvc.stage import PipelineStage

from acf.data.prepared.manifest import manifest_path
from acf.errors import ConfigError
from acf.stages.code_notes import write_code
from acf.stages.current import Current, Task
from acf.stages.engines import busy
from acf.stages.project import Project


def sync(root: Path = Path(".")) -> None:
    """Record all outputs that are up to date in dvc.lock and in DVC's cache; nothing is computed.

    Only outputs that are what their stages would make now are recorded, so that dvc.lock never vouches for others.
    Prepared data that are not are named, since nothing made from them is recorded either.

    Raises:
        ConfigError: no project, or none with DVC.
        BusyError: an engine is at work; names its process.
        AcfError: a file cannot be written.
    """
    logging.getLogger("dvc").setLevel(logging.WARNING)  # one line per stage
    current = Current(Project(root))
    try:
        repo = Repo(str(root))
    except NotDvcRepoError:
        raise ConfigError(f"{root.resolve()} is no folder of DVC; run: git init && dvc init") from None
    with repo, busy(root, LockError):
        write_code(root)
        stages = [(stage, Task.of(stage.cmd)) for stage in repo.index.stages if stage.cmd]
        built = [stage for stage, task in stages if task.stage == "code" or current.is_current(task)]
        changed = [stage for stage in built if any(stage.changed_entries())]
        _record(repo, changed)
        _name_other_data(
            current, [task for _, task in stages if task.stage == "prepare" and not current.is_current(task)]
        )
    print(
        f"dvc.lock: recorded {len(changed)} stages, {len(built) - len(changed)} were already; "
        f"{len(stages) - len(built)} are not built, or not up to date"
    )


def _name_other_data(current: Current, tasks: Sequence[Task]) -> None:
    """Say of which data in place nothing is recorded, of those whose tasks are not up to date."""
    for task in tasks:
        (dataset,) = task.names
        manifest = manifest_path(dataset, current.project.data)
        if manifest.exists():
            print(
                f"{manifest.parent} is not what `acf prepare` would make now: its code or its source has changed, or a "
                f"file is missing. Nothing made from it is recorded; remove it and run: acf prepare --dataset {dataset}"
            )


def _record(repo: Repo, stages: Sequence[PipelineStage]) -> None:
    """Do what `dvc commit --force` does for each stage, but write dvc.lock once: it is large, and so is the graph."""
    with lock_repo(repo):
        for stage in stages:
            stage.save()
            stage.commit()
        for file in {stage.path: stage.dvcfile for stage in stages}.values():
            file.dump_stages([stage for stage in stages if stage.path == file.path], update_pipeline=False)
