"""Which outputs in place are those that their stages would make today, whatever their age and whoever made them."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from acf.data import read_manifest
from acf.data.prepared.labels import labels_path
from acf.data.prepared.manifest import SPLITS, manifest_path
from acf.data.prepared.tensors import tensor_path
from acf.data.sources.registered import dataset_source
from acf.errors import AcfError
from acf.flows.record import CONFIG, WEIGHTS, recorded_weights_hash
from acf.registry import ANALYSES
from acf.runs.recipe import all_code_hashes, recipe_name
from acf.settings.analysis_section import AnalysisSection
from acf.settings.params import Run
from acf.stages.conversions import is_conversion
from acf.stages.index import index_recipe
from acf.stages.named_recipes import computation_of
from acf.stages.prepare import describes
from acf.stages.project import HISTORY, Project
from acf.stages.recorded import recorded_recipe
from acf.stages.report import report_recipe

REPORT_FILES = ("index.html", "table.csv", "table.md", "table.tex", "findings.json", "figures")


class Task(NamedTuple):
    """One call of a stage."""

    stage: str
    names: tuple[str, ...] = ()
    """What its options say: a data set, an experiment, or experiment, variant and seed."""

    @classmethod
    def of(cls, command: str) -> "Task":
        """Return the task of a command as the engines run it, `acf train --experiment digits ...`."""
        _, stage, *options = command.split()
        return cls(stage, tuple(options[1::2]))

    @property
    def run(self) -> Run:
        """The model that the task is about."""
        experiment, variant, seed = self.names
        return Run(experiment, variant, int(seed))


class Current:
    """The state of a study's outputs when it is asked for; every answer is remembered.

    Nothing large is read: content hashes are those that the manifest and config.json have.

    Args:
        project: where everything is.
        code: what `all_code_hashes` returned, for a caller that has it.
    """

    def __init__(self, project: Project, code: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self.project = project
        self._code = all_code_hashes() if code is None else code
        self.is_current = cache(self._is_current)

    def expected(self, task: Task) -> str | None:
        """Return the recipe that a task would have now; None where its inputs are not all there, or damaged.

        Prepared data have none; their manifest says what they are.
        """
        try:
            return self._expected(task)
        except (AcfError, OSError):
            return None

    def outputs(self, task: Task) -> list[Path]:
        """Return what a task writes."""
        project = self.project
        match task.stage:
            case "prepare":
                dataset = task.names[0]
                tensors = [tensor_path(dataset, split, project.data) for split in SPLITS]
                return [*tensors, labels_path(dataset, project.data), manifest_path(dataset, project.data)]
            case "train":
                return [project.model(task.run) / name for name in (WEIGHTS, CONFIG, HISTORY)]
            case "evaluate":
                return [project.metrics(task.run), project.images(task.run)]
            case "sample":
                return [project.samples(task.run) / name for name in project.sample_files(task.run.experiment)]
            case "baselines":
                return [project.baselines(task.names[0]), project.baseline_images(task.names[0])]
            case "report":
                name = task.names[0]
                report = [project.report(name) / file for file in REPORT_FILES]
                return [*report, project.summary(name), project.curves(name)]
            case name if name in ANALYSES:
                section: AnalysisSection = getattr(project.params.analyses(task.run.experiment), name)
                return [project.analyses(task.run) / file for file in section.output_names(name)]
        return [project.index]

    def upstream(self, task: Task) -> Sequence[Task]:
        """Return the tasks whose outputs a task reads."""
        params = self.project.params
        if task.stage == "prepare":
            return []
        if task.stage == "index":
            return [Task("report", (name,)) for name in params.experiments]
        data = Task("prepare", (params.prepared(task.names[0]),))
        match task.stage:
            case "train" | "baselines":
                return [data]
            case "evaluate" | "sample":
                return [data, Task("train", task.names)]
            case name if name in ANALYSES:
                section = getattr(params.analyses(task.run.experiment), name)
                others = [Task("prepare", (other,)) for other in section.other_datasets]
                return [data, *others, Task("train", task.names)]
        runs = [(run.experiment, run.variant, str(run.seed)) for run in params.runs(task.names[0])]
        stages = ("train", "evaluate", "sample")
        analysed = [
            Task(name, (run.experiment, run.variant, str(run.seed))) for name, run in params.analysed(task.names[0])
        ]
        measured = [Task(stage, run) for run in runs for stage in stages]
        return [data, Task("baselines", task.names), *measured, *analysed]

    def _is_current(self, task: Task) -> bool:
        """Whether the outputs of a task, and all they were made from, are what the stages would make now."""
        if not all(self.is_current(before) for before in self.upstream(task)):
            return False
        if task.stage == "prepare":
            return self._is_prepared(task.names[0])
        expected = self.expected(task)
        return expected is not None and recorded_recipe(self.outputs(task)) == expected

    def _is_prepared(self, dataset: str) -> bool:
        task, data = Task("prepare", (dataset,)), self.project.data
        try:
            manifest = read_manifest(dataset, data)
            return (
                describes(dataset_source(dataset), manifest)
                and all(path.is_file() for path in self.outputs(task))
                and is_conversion(dataset, data, self._code["prepare"])
            )
        except AcfError:
            return False

    def _expected(self, task: Task) -> str:
        project, hashes = self.project, self._code[task.stage]
        match task.stage:
            case "report":
                return report_recipe(project, task.names[0], hashes)
            case "index":
                return index_recipe(project, hashes)
        run = Run(task.names[0], "", 0) if task.stage == "baselines" else task.run
        return recipe_name(computation_of(project, task.stage, run, recorded_weights_hash).parts(hashes))
