"""The recipes that params.yaml and the present code name, without computing anything."""

from collections.abc import Callable, Mapping
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from typing_extensions import override

from acf.errors import AcfError, ConfigError, DataError
from acf.flows.record import CONFIG, WEIGHTS, weights_hash
from acf.registry import ANALYSES
from acf.runs.recipe import code_hashes, recipe_name
from acf.runs.store import OUTPUTS, RUNS
from acf.runs.stored import StoredRun, read_stored
from acf.settings.params import Run
from acf.stages import analyse
from acf.stages.cached import Computation
from acf.stages.project import Project
from acf.stages.trained import read_trained

OF_RUNS = ("train", "evaluate", "sample", *ANALYSES)
"""Stages with a recipe that each run has one of, or, of some analyses, each variant."""
WITH_RECIPE = (*OF_RUNS, "baselines")


def subject(stage: str, run: Run) -> Run:
    """Return the run without what `stage` does not depend on: baselines are of an experiment."""
    return Run(run.experiment, "", 0) if stage == "baselines" else run


def stored_subject(stored: StoredRun) -> Run | None:
    """Return which run a stored one is of; None where this version has no such stage or that is not known."""
    experiment, variant, seed = stored.identity
    if stored.stage == "baselines" and isinstance(experiment, str):
        return Run(experiment, "", 0)
    known = isinstance(experiment, str) and isinstance(variant, str) and isinstance(seed, int)
    return Run(experiment, variant, seed) if stored.stage in OF_RUNS and known else None


def computation_of(
    project: Project, stage: str, run: Run, weights: Callable[[Path], str] = weights_hash
) -> Computation:
    """Return the computation of `stage`, one of `WITH_RECIPE`, for a run; baselines read its experiment only.

    Raises:
        AcfError: as the stage raises them before it begins: bad configuration, missing data or model.
    """
    if stage in ANALYSES:
        return analyse.computation(project, stage, run, weights=weights)
    make: Callable[..., Computation] = import_module(f"acf.stages.{stage}").computation
    if stage == "baselines":
        return make(project, run.experiment)
    return make(project, run) if stage == "train" else make(project, run, weights=weights)


class _KeptModel(Project):
    """A project whose model is the one kept in a run store."""

    def __init__(self, project: Project, folder: Path) -> None:
        super().__init__(project.root)
        self._folder = folder

    @override
    def model(self, run: Run) -> Path:
        return self._folder


class NamedRecipes:
    """What params.yaml and the present code ask for, stage by stage and run by run.

    Args:
        project: the project.

    Raises:
        ConfigError: params.yaml cannot be used.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._runs = set(project.params.runs())
        self._code: dict[str, Mapping[str, str]] = {}
        self._parts: dict[tuple[str, Run], dict[str, Any] | AcfError] = {}

    def names(self, stage: str, run: Run) -> bool:
        """Whether params.yaml has this run, or, of the baselines, its experiment."""
        params = self._project.params
        if stage == "baselines":
            return run.experiment in params.experiments
        return run in self._runs and (stage not in ANALYSES or (stage, run) in params.analysed(run.experiment))

    def parts(self, stage: str, run: Run) -> dict[str, Any]:
        """Return what the recipe of `stage` for `run` is made of.

        The model that is evaluated and sampled is the one that params.yaml names: from the run store if it is kept
        there, else from its place.

        Raises:
            AcfError: it cannot be said: no data, or the model that params.yaml names is not trained.
        """
        if (stage, run) not in self._parts:
            try:
                self._parts[stage, run] = self._made(stage, run)
            except AcfError as error:
                self._parts[stage, run] = error
        found = self._parts[stage, run]
        if isinstance(found, AcfError):
            raise found
        return found

    @cached_property
    def recipes(self) -> frozenset[str]:
        """All recipes that can be said."""
        recipes = set()
        for stage in WITH_RECIPE:
            for run in {subject(stage, run) for run in self._runs}:
                if not self.names(stage, run):
                    continue
                try:
                    recipes.add(recipe_name(self.parts(stage, run)))
                except AcfError:
                    continue
        return frozenset(recipes)

    def _made(self, stage: str, run: Run) -> dict[str, Any]:
        project = self._project if stage in ("train", "baselines") else self._with_model(run)
        computation = computation_of(project, stage, run)
        if stage not in self._code:
            self._code[stage] = code_hashes(stage)
        return computation.parts(self._code[stage])

    def _with_model(self, run: Run) -> Project:
        recipe = recipe_name(self.parts("train", run))
        folder = self._project.root / RUNS / recipe
        if {WEIGHTS, CONFIG} <= read_stored(folder).kept.keys():
            return _KeptModel(self._project, folder / OUTPUTS)
        try:
            in_place = read_trained(self._project, run).recipe
        except ConfigError as error:
            raise DataError(str(error)) from None
        if in_place != recipe:
            raise DataError(f"the model that params.yaml and the code name for {run.folder.as_posix()} is not trained")
        return self._project
