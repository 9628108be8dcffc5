"""`params.yaml`: the settings of each run, merged and validated, with errors that name key and line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from acf.errors import ConfigError, dotted, shown
from acf.registry import TABLES
from acf.settings.analysis_config import AnalysisSection
from acf.settings.config import (
    SEEDS,
    AnalysesConfig,
    DatasetConfig,
    EvaluationConfig,
    ReportingConfig,
    RunConfig,
    wording,
)
from acf.settings.dataset_config import dataset_fault
from acf.settings.yaml_file import KeyPath, plain_value, read_yaml

PARAMS_FILE = Path("params.yaml")
NAME_RULE = (
    "letters, digits, - and _, beginning with a letter or digit, and is not a number, a date, true, yes or the like"
)
LONGEST_NAME = 100


class Run(NamedTuple):
    """One trained model of the study."""

    experiment: str
    variant: str
    seed: int

    @property
    def folder(self) -> Path:
        """Its place below models/, results/ and samples/."""
        return Path(self.experiment, self.variant, f"seed{self.seed}")

    @property
    def options(self) -> str:
        """The options that name it on the command line."""
        return f"--experiment {self.experiment} --variant {self.variant} --seed {self.seed}"

    def identity(self, dataset: str) -> dict[str, Any]:
        """Return what its files say of it: experiment, variant, seed and data set."""
        return {"experiment": self.experiment, "dataset": dataset, "variant": self.variant, "seed": self.seed}


def name_fault(name: str) -> str | None:
    """Return what is wrong with the name of an experiment or a variant; None if it can be used.

    Names become folders, parts of commands and of stage names in both engines, and stand in files without quotes.
    """
    try:
        is_text = plain_value(name) == name
    except ValueError:
        is_text = False
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) or not is_text:
        return f"{shown(name)} cannot be a name; a name has {NAME_RULE}"
    if len(name) > LONGEST_NAME:
        return f"{shown(name)} is too long for a name; it can have {LONGEST_NAME} letters"
    return None


class Params:
    """`params.yaml`: read, merged and validated.

    The settings of a run are merged from four places, the later over the earlier: `defaults`, `experiments.E`,
    `variants.V` (model only) and `experiments.E.variants.V` (model and training).

    Raises:
        ConfigError: unreadable file, unknown or missing key, impossible name or value; the message has key and line.
    """

    def __init__(self, path: Path | str = PARAMS_FILE) -> None:
        self.path = Path(path)
        content, self._lines = read_yaml(self.path)
        self.raw: dict[str, Any] = content if content is not None else {}
        self._check_layout()
        self._runs = {(e, v): self._resolve(e, v) for e in self.experiments for v in self.variants(e)}

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets that are prepared: those that are not made of another when they are loaded."""
        return [name for name, config in self._datasets.items() if config.source is None]

    @property
    def experiments(self) -> list[str]:
        """Names of the experiments."""
        return list(self.raw["experiments"])

    def dataset(self, experiment: str) -> str:
        """Name of the data set of `experiment`, under which its results go."""
        return str(self._experiment(experiment)["dataset"])

    def prepared(self, experiment: str) -> str:
        """Name of the data set that is prepared for `experiment`: its own, or the source that this is made of."""
        return self.seen(experiment).source or self.dataset(experiment)

    def is_of_images(self, experiment: str) -> bool:
        """Whether the data set of `experiment` has images and not vectors."""
        return self.dataset(experiment) not in TABLES

    def seen(self, experiment: str) -> DatasetConfig:
        """What the models of `experiment` see of what is prepared."""
        return self._datasets[self.dataset(experiment)]

    def variants(self, experiment: str) -> list[str]:
        """Names of the variants compared in `experiment`."""
        return list(self._experiment(experiment)["variants"])

    def seeds(self, experiment: str) -> list[int]:
        """Seeds trained in `experiment`."""
        return list(self._experiment(experiment)["seeds"])

    def runs(self, experiment: str | None = None) -> list[Run]:
        """All models of `experiment`, or of the whole study, in the order of the file."""
        names = self.experiments if experiment is None else [experiment]
        return [
            Run(name, variant, seed) for name in names for variant in self.variants(name) for seed in self.seeds(name)
        ]

    def resolve(self, experiment: str, variant: str) -> RunConfig:
        """Return the merged settings of `variant` in `experiment`."""
        if variant not in self.variants(experiment):
            known = ", ".join(self.variants(experiment))
            raise ConfigError(f"{self.path}: experiments.{experiment} has no variant {shown(variant)}; it has: {known}")
        return self._runs[experiment, variant]

    def evaluation(self, experiment: str) -> EvaluationConfig:
        """Return the evaluation settings that all variants of `experiment` share."""
        return self.resolve(experiment, self.variants(experiment)[0]).evaluation

    def analyses(self, experiment: str) -> AnalysesConfig:
        """Return the settings of the analyses that all variants of `experiment` share."""
        return self.resolve(experiment, self.variants(experiment)[0]).analyses

    def analyses_made(self, experiment: str) -> dict[str, AnalysisSection]:
        """Return the sections of the analyses that an experiment has, by name: all on images, and none on vectors."""
        return dict(self.analyses(experiment)) if self.is_of_images(experiment) else {}

    def analysed(self, experiment: str) -> list[tuple[str, Run]]:
        """All analyses of `experiment`, each with the models that it looks at; of vectors there are none."""
        first = self.seeds(experiment)[0]
        return [
            (name, run)
            for name, section in self.analyses_made(experiment).items()
            for run in self.runs(experiment)
            if section.every_seed or run.seed == first
        ]

    def reads_labels(self, experiment: str) -> bool:
        """Whether a variant of `experiment` is trained with the labels of its data set."""
        runs = (self.resolve(experiment, variant) for variant in self.variants(experiment))
        return any(run.training.task.reads_labels for run in runs)

    def reporting(self, experiment: str) -> ReportingConfig:
        """Return the settings of the report on `experiment`."""
        return self.resolve(experiment, self.variants(experiment)[0]).reporting

    def _experiment(self, experiment: str) -> dict[str, Any]:
        if experiment not in self.raw["experiments"]:
            known = ", ".join(self.experiments)
            raise ConfigError(f"{self.path}: no experiment {shown(experiment)}; experiments has: {known}")
        return self.raw["experiments"][experiment]

    def _fault(self, path: KeyPath, message: str) -> ConfigError:
        known = path
        while known not in self._lines and known:
            known = known[:-1]
        name = dotted(path) or "the file"
        return ConfigError(f"{self.path}:{self._lines.get(known, 1)}: {name}: {message}")

    def _mapping(self, path: tuple[str, ...], required: set[str] | None, optional: set[str]) -> dict[str, Any]:
        """Return the mapping at `path`, whose keys must be those named; any keys will do where `required` is None."""
        value: Any = self.raw
        for key in path:
            value = value[key]
        if not isinstance(value, dict):
            raise self._fault(path, "must be a mapping of keys to values (write {} for an empty one)")
        if required is not None:
            for key in sorted(required - set(value)):
                raise self._fault(path, f"key {key!r} is missing")
            for key in value:
                if key not in required | optional:
                    raise self._fault((*path, key), f"unknown key; known: {', '.join(sorted(required | optional))}")
        return value

    def _named(self, path: tuple[str, ...], what: str) -> dict[str, Any]:
        """Return the mapping at `path`, which must have at least one key, all of them usable as names."""
        entries = self._mapping(path, None, set())
        if not entries:
            raise self._fault(path, f"names no {what}")
        for name in entries:
            if fault := name_fault(name):
                raise self._fault((*path, name), fault)
        return entries

    def _check_layout(self) -> None:
        self._mapping((), {"defaults", "datasets", "variants", "experiments"}, set())
        sections = set(RunConfig.model_fields)
        self._mapping(("defaults",), sections, set())
        names = self._mapping(("datasets",), None, set())
        self._datasets = {name: self._dataset(name) for name in names}
        for variant in self._named(("variants",), "variant"):
            self._mapping(("variants", variant), set(), {"model"})
        for experiment in self._named(("experiments",), "experiment"):
            self._check_experiment(experiment, sections)

    def _check_experiment(self, name: str, sections: set[str]) -> None:
        path = ("experiments", name)
        experiment = self._mapping(path, sections | {"dataset", "seeds", "variants"}, set())
        dataset, seeds = experiment["dataset"], experiment["seeds"]
        if not isinstance(dataset, str) or dataset not in self.raw["datasets"]:
            known = ", ".join(self.raw["datasets"])
            raise self._fault((*path, "dataset"), f"no data set {shown(dataset)}; datasets has: {known}")
        if (
            not isinstance(seeds, list)
            or not seeds
            or not all(isinstance(s, int) and not isinstance(s, bool) and 0 <= s < SEEDS for s in seeds)
            or len(set(seeds)) < len(seeds)
        ):
            what = "must be a list of different whole numbers from 0 to 2^63 - 1, at least one"
            raise self._fault((*path, "seeds"), f"{what} (got {shown(seeds)})")
        for variant in self._named((*path, "variants"), "variant"):
            if variant not in self.raw["variants"]:
                known = ", ".join(self.raw["variants"])
                raise self._fault((*path, "variants", variant), f"unknown variant; variants has: {known}")
            self._mapping((*path, "variants", variant), set(), {"model", "training"})

    def _dataset(self, name: str) -> DatasetConfig:
        path = ("datasets", name)
        try:
            config = DatasetConfig.model_validate(self._mapping(path, None, set()))
        except ValidationError as error:
            first = error.errors()[0]
            raise self._fault((*path, *first["loc"]), wording(first)) from None
        if found := dataset_fault(name, config, self.raw["datasets"]):
            raise self._fault((*path, *found[0]), found[1])
        if config.source is not None and (fault := name_fault(name)):
            raise self._fault(path, fault)
        return config

    def _resolve(self, experiment: str, variant: str) -> RunConfig:
        merged: dict[str, Any] = {}
        origin: dict[KeyPath, KeyPath] = {}
        for source in (
            ("defaults",),
            ("experiments", experiment),
            ("variants", variant),
            ("experiments", experiment, "variants", variant),
        ):
            place: Any = self.raw
            for key in source:
                place = place[key]
            for section in RunConfig.model_fields:
                if section in place:
                    self._mapping((*source, section), None, set())
                    target = merged.setdefault(section, {})
                    _merge(target, place[section], (section,), (*source, section), origin)
        try:
            return RunConfig.model_validate(merged)
        except ValidationError as error:
            first = error.errors()[0]
            raise self._fault(_origin(tuple(first["loc"]), origin), wording(first)) from None


def _merge(
    into: dict[str, Any],
    new: Mapping[str, Any],
    at: KeyPath,
    source: KeyPath,
    origin: dict[KeyPath, KeyPath],
) -> None:
    """Merge `new`, found at `source`, over `into`, and note in `origin` where each merged key stands in the file."""
    for key, value in new.items():
        origin[(*at, key)] = (*source, key)
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value, (*at, key), (*source, key), origin)
        elif isinstance(value, dict):
            into[key] = {}
            _merge(into[key], value, (*at, key), (*source, key), origin)
        else:
            into[key] = value


def _origin(location: KeyPath, origin: dict[KeyPath, KeyPath]) -> KeyPath:
    """Return where in the file a merged key stands, or the nearest key above it."""
    for cut in range(len(location), 0, -1):
        if location[:cut] in origin:
            return (*origin[location[:cut]], *location[cut:])
    return ("defaults", *location)
