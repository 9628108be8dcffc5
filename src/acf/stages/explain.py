"""Why a stage would compute, go on, restore or wait, in one paragraph; nothing is computed and nothing written."""

import json
from pathlib import Path
from typing import Any

from acf.errors import ConfigError, DataError, shown
from acf.registry import ANALYSES
from acf.runs.code import CODE
from acf.runs.differences import Difference, differences, in_words
from acf.runs.recipe import file_hash, recipe_name
from acf.runs.store import RUNS
from acf.runs.stored import StoredRun, read_stored, stored_runs
from acf.settings.params import Run
from acf.stages.cached import Computation
from acf.stages.named_recipes import OF_RUNS, WITH_RECIPE, NamedRecipes, computation_of, stored_subject, subject
from acf.stages.project import Project
from acf.stages.run_list import duration
from acf.stages.trained import read_trained
from acf.stages.without_recipe import explain_without_recipe

RECORDS = {"train": "config.json", "evaluate": "metrics.json", **{name: f"{name}.json" for name in ANALYSES}}
"""Outputs that name their recipe."""


def explain(
    stage: str,
    experiment: str | None = None,
    variant: str | None = None,
    seed: int = 0,
    dataset: str | None = None,
    root: Path = Path("."),
) -> str:
    """Return a paragraph on what the command of a stage would do now, and why.

    Args:
        stage: a key of `acf.runs.code.CODE`.
        experiment: of all stages but `prepare` and `index`.
        variant: of `train`, `evaluate`, `sample` and the analyses.
        seed: of the same.
        dataset: of `prepare`.
        root: the project's top folder.

    Raises:
        ConfigError: unknown stage, an option that the stage needs is missing, or bad configuration.
        AcfError: a file that the stage reads is damaged.
    """
    if stage not in CODE:
        raise ConfigError(f"no stage {shown(stage)}; stages are: {', '.join(CODE)}")
    project = Project(root)
    if stage not in WITH_RECIPE:
        return explain_without_recipe(project, stage, experiment, dataset)
    run = Run(_given(stage, "experiment", experiment), "", 0)
    if stage in OF_RUNS:
        run = Run(run.experiment, _given(stage, "variant", variant), seed)
    title = f"{stage} {run.folder.as_posix() if stage in OF_RUNS else run.experiment}"
    try:
        computation = computation_of(project, stage, run)
    except DataError as error:
        return f"{title} cannot run yet: {error}."
    return _Explanation(project, title, run, computation).text()


def _given(stage: str, name: str, value: str | None) -> str:
    if value is None:
        raise ConfigError(f"acf explain {stage} needs the option --{name}")
    return value


class _Explanation:
    """What is said about one computation.

    Args:
        project: the project.
        title: name of the computation in sentences.
        run: what it is of.
        computation: the computation.
    """

    def __init__(self, project: Project, title: str, run: Run, computation: Computation) -> None:
        self._project, self._title, self._run, self._computation = project, title, run, computation
        self._stage = computation.stage
        self._parts = computation.parts()
        self._recipe = recipe_name(self._parts)
        others = [other for other in stored_runs(project.root) if other.recipe != self._recipe]
        self._unknown = sum(other.parts is None for other in others)
        alike = [other for other in others if other.stage == self._stage]
        # Of those that differ in as many things, the one that changed last.
        self._earlier = sorted(
            (other for other in alike if stored_subject(other) == subject(self._stage, run)),
            key=lambda other: len(self._differences(other)),
        )
        self._alike = alike

    def text(self) -> str:
        """Return the paragraph."""
        stored = read_stored(self._project.root / RUNS / self._recipe)
        sentence, from_start = self._verdict(stored)
        sentences = [sentence]
        if from_start:
            sentences.append(self._closest())
        sentences += [self._in_place(), self._model(), self._named(), self._engines()]
        return " ".join(filter(None, sentences))

    def _verdict(self, stored: StoredRun) -> tuple[str, bool]:
        """Say what the command would do; the second value is whether it begins at the start."""
        title, named = self._title, f"its recipe {self._recipe}"
        reached = stored.reached
        at = f"step {reached.step} of {reached.steps}" if reached else "a step that is not noted"
        if stored.state == "running":
            where = f", which was at {at} at its last checkpoint" if reached else ""
            return f"{title} would wait: another process is at work on {named}{where}.", False
        ago = f"{duration(stored.age)} ago"
        if stored.kept and set(stored.kept) == {path.name for path in self._computation.paths}:
            if damaged := stored.damaged_outputs():
                what = f"of {named}, finished {ago}, {', '.join(damaged)} is damaged in the run store"
                return f"{title} would be computed again: {what}.", False
            return f"{title} would be restored, not computed: {named} was finished {ago}.", False
        if stored.has_checkpoint:
            return f"{title} would go on from a checkpoint at {at}: {named} was interrupted {ago}.", False
        if stored.state == "finished":
            return f"{title} would be computed from the start: the outputs kept of {named} are not usable.", True
        if any(fault.startswith("done.json") for fault in stored.faults):
            return f"{title} would be computed from the start: the list of kept outputs of {named} is damaged.", True
        return f"{title} would be computed from the start: no run of {named} was finished or left a checkpoint.", True

    def _closest(self) -> str:
        if not self._earlier:
            known = f"The run store knows no earlier run of {self._title}."
            if not self._unknown:
                return known
            runs = "1 run has" if self._unknown == 1 else f"{self._unknown} runs have"
            return f"{known} {runs} no readable recipe.json, as runs of earlier versions; what differs is not known."
        closest = self._earlier[0]
        return f"The closest earlier run is {self._of(closest)}: {self._words(closest)}."

    def _of(self, stored: StoredRun) -> str:
        return f"{stored.recipe} ({stored.state}, changed {duration(stored.age)} ago)"

    def _words(self, stored: StoredRun) -> str:
        return "; ".join(in_words(self._differences(stored)))

    def _differences(self, stored: StoredRun) -> list[Difference]:
        return differences(stored.parts, self._parts) if stored.parts else []

    def _in_place(self) -> str:
        """Say of which recipe the outputs in their places are."""
        paths, place = self._computation.paths, self._computation.place
        if absent := [path for path in paths if not path.is_file()]:
            folders = " and ".join(dict.fromkeys(str(path.parent) for path in absent))
            return f"{'Some' if len(absent) < len(paths) else 'All'} of its outputs are missing in {folders}."
        found = self._recipe_in_place()
        if found is None:
            return f"Of which recipe the outputs in {place} are is not known."
        if found == self._recipe:
            return f"The outputs in {place} are of this recipe."
        known = next((other for other in self._alike if other.recipe == found), None)
        if self._earlier and self._earlier[0] is known:
            what = f"earlier run {found}"
        elif known is None:
            what = f"recipe {found}, of which the run store knows nothing"
        else:
            what = f"{self._of(known)}: {self._words(known)}"
        return f"The outputs in {place} are not of this recipe but of {what}."

    def _recipe_in_place(self) -> str | None:
        paths = {path.name: path for path in self._computation.paths}
        if self._stage in RECORDS:
            return _recorded(paths[RECORDS[self._stage]])
        hashes = {name: file_hash(path) for name, path in paths.items()}
        candidates = [read_stored(self._project.root / RUNS / self._recipe), *self._alike]
        return next((stored.recipe for stored in candidates if stored.kept == hashes), None)

    def _model(self) -> str:
        """Say whether the model that is read is the one that params.yaml and the code name."""
        if self._stage in ("train", "baselines"):
            return ""
        wanted = recipe_name(computation_of(self._project, "train", self._run).parts())
        found = read_trained(self._project, self._run).recipe
        if found == wanted:
            return ""
        return (
            f"The model in {self._project.model(self._run)} is of recipe {found}, but params.yaml and the code name "
            f"{wanted} (`acf explain train {self._run.options}` says why); trained anew, it is another input."
        )

    def _named(self) -> str:
        if NamedRecipes(self._project).names(self._stage, self._run):
            return ""
        return "params.yaml does not name this run, so that no engine asks for it."

    def _engines(self) -> str:
        experiment, variant, seed = self._run
        stage = f"{self._stage}-{experiment}@{variant}-{seed}"
        if self._stage == "baselines":
            stage = f"baselines@{experiment}"
        output = self._computation.paths[0].relative_to(self._project.root).as_posix()
        return f"`dvc status {stage}` and `snakemake --dry-run {output}` say what the engines would do."


def _recorded(path: Path) -> str | None:
    """Return the recipe that an output names; None if it is damaged or names none."""
    try:
        content: Any = json.loads(path.read_bytes())
        found = content.get("recipe")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return found if isinstance(found, str) else None
