"""`params.yaml`: the settings of each run, merged and validated, with errors that name key and line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from acf.errors import ConfigError
from acf.registry import DATASETS
from acf.settings.config import DataConfig, EvaluationConfig, RunConfig, wording

PARAMS_FILE = Path("params.yaml")


class Run(NamedTuple):
    """One trained model of the study."""

    dataset: str
    variant: str
    seed: int

    @property
    def folder(self) -> Path:
        """Its place below models/, results/ and samples/."""
        return Path(self.dataset, self.variant, f"seed{self.seed}")


class Params:
    """`params.yaml`: read, merged and validated.

    The settings of a run are merged from four places, the later over the earlier: `defaults`, `experiments.D`,
    `variants.V` (model only) and `experiments.D.variants.V` (model and training).

    Raises:
        ConfigError: unreadable file, unknown or missing key, impossible value; the message has key and line.
    """

    def __init__(self, path: Path | str = PARAMS_FILE) -> None:
        self.path = Path(path)
        self._lines: dict[tuple[str | int, ...], int] = {}
        self.raw = self._read()
        self._check_layout()
        self._runs = {(d, v): self._resolve(d, v) for d in self.datasets for v in self.variants(d)}

    @property
    def datasets(self) -> list[str]:
        """Names of the data sets under `experiments`."""
        return list(self.raw["experiments"])

    def variants(self, dataset: str) -> list[str]:
        """Names of the variants compared on `dataset`."""
        return list(self._experiment(dataset)["variants"])

    def seeds(self, dataset: str) -> list[int]:
        """Seeds trained on `dataset`."""
        return list(self._experiment(dataset)["seeds"])

    def runs(self) -> Iterator[Run]:
        """All models of the study, in the order of the file."""
        for dataset in self.datasets:
            for variant in self.variants(dataset):
                for seed in self.seeds(dataset):
                    yield Run(dataset, variant, seed)

    def resolve(self, dataset: str, variant: str) -> RunConfig:
        """Return the merged settings of `variant` on `dataset`."""
        if variant not in self.variants(dataset):
            known = ", ".join(self.variants(dataset))
            raise ConfigError(f"{self.path}: experiments.{dataset} has no variant {variant!r}; it has: {known}")
        return self._runs[dataset, variant]

    def evaluation(self, dataset: str) -> EvaluationConfig:
        """Return the evaluation settings all variants of `dataset` share."""
        return self.resolve(dataset, self.variants(dataset)[0]).evaluation

    def data(self, dataset: str) -> DataConfig:
        """Return what all models of `dataset` see of it."""
        return self.resolve(dataset, self.variants(dataset)[0]).data

    def _experiment(self, dataset: str) -> dict[str, Any]:
        if dataset not in self.raw["experiments"]:
            known = ", ".join(self.datasets)
            raise ConfigError(f"{self.path}: no experiment on {dataset!r}; experiments has: {known}")
        return self.raw["experiments"][dataset]

    def _read(self) -> dict[str, Any]:
        try:
            node = yaml.compose(self.path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
            data = yaml.safe_load(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{self.path} not found; run acf in the project's top folder") from None
        except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
            raise ConfigError(f"{self.path} cannot be read as YAML: {error}") from None
        if node is not None:
            self._record(node, ())
        return data if isinstance(data, dict) else {}

    def _record(self, node: yaml.Node, path: tuple[str | int, ...]) -> None:
        self._lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                if key.value in seen:
                    raise ConfigError(f"{self.path}:{key.start_mark.line + 1}: key {key.value!r} stands twice")
                seen.add(key.value)
                self._lines[(*path, key.value)] = key.start_mark.line + 1
                self._record(value, (*path, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self._record(value, (*path, index))

    def _fail(self, path: tuple[str | int, ...], message: str) -> ConfigError:
        known = path
        while known not in self._lines and known:
            known = known[:-1]
        name = ".".join(map(str, path)) or "the file"
        return ConfigError(f"{self.path}:{self._lines.get(known, 1)}: {name}: {message}")

    def _mapping(self, path: tuple[str, ...], required: set[str] | None, optional: set[str]) -> dict[str, Any]:
        value: Any = self.raw
        for key in path:
            value = value[key]
        if not isinstance(value, dict):
            raise self._fail(path, "must be a mapping of keys to values (write {} for an empty one)")
        if required is not None:
            for key in sorted(required - set(value)):
                raise self._fail(path, f"key {key!r} is missing")
            for key in value:
                if key not in required | optional:
                    raise self._fail((*path, key), f"unknown key; known: {', '.join(sorted(required | optional))}")
        return value

    def _check_layout(self) -> None:
        self._mapping((), {"defaults", "variants", "experiments"}, set())
        parts = set(RunConfig.model_fields)
        self._mapping(("defaults",), parts, set())
        for variant in self._mapping(("variants",), None, set()):
            self._mapping(("variants", variant), set(), {"model"})
        if not self._mapping(("experiments",), None, set()):
            raise self._fail(("experiments",), "names no data set")
        for dataset in self.raw["experiments"]:
            self._check_experiment(dataset, parts)

    def _check_experiment(self, dataset: str, parts: set[str]) -> None:
        path = ("experiments", dataset)
        if dataset not in DATASETS:
            raise self._fail(path, f"unknown data set; known: {', '.join(sorted(DATASETS))}")
        experiment = self._mapping(path, parts | {"seeds", "variants"}, set())
        seeds = experiment["seeds"]
        if (
            not isinstance(seeds, list)
            or not seeds
            or not all(isinstance(s, int) and not isinstance(s, bool) and s >= 0 for s in seeds)
            or len(set(seeds)) < len(seeds)
        ):
            raise self._fail((*path, "seeds"), "must be a list of different whole numbers, at least one")
        if not self._mapping((*path, "variants"), None, set()):
            raise self._fail((*path, "variants"), "names no variant")
        for variant in experiment["variants"]:
            if variant not in self.raw["variants"]:
                known = ", ".join(self.raw["variants"])
                raise self._fail((*path, "variants", variant), f"unknown variant; variants has: {known}")
            self._mapping((*path, "variants", variant), set(), {"model", "training"})

    def _resolve(self, dataset: str, variant: str) -> RunConfig:
        origin: dict[tuple[str | int, ...], tuple[str | int, ...]] = {}
        merged: dict[str, Any] = {}
        for source in (
            ("defaults",),
            ("experiments", dataset),
            ("variants", variant),
            ("experiments", dataset, "variants", variant),
        ):
            section: Any = self.raw
            for key in source:
                section = section[key]
            for part in RunConfig.model_fields:
                if part in section:
                    self._mapping((*source, part), None, set())
                    _merge(merged.setdefault(part, {}), section[part], (part,), (*source, part), origin)
        try:
            return RunConfig.model_validate(merged)
        except ValidationError as error:
            first = error.errors()[0]
            location = tuple(first["loc"])
            raise self._fail(_origin(location, origin), wording(first)) from None


def _merge(
    into: dict[str, Any],
    new: Mapping[str, Any],
    at: tuple[str | int, ...],
    source: tuple[str | int, ...],
    origin: dict[tuple[str | int, ...], tuple[str | int, ...]],
) -> None:
    for key, value in new.items():
        origin[(*at, key)] = (*source, key)
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value, (*at, key), (*source, key), origin)
        elif isinstance(value, dict):
            into[key] = {}
            _merge(into[key], value, (*at, key), (*source, key), origin)
        else:
            into[key] = value


def _origin(
    location: tuple[str | int, ...], origin: dict[tuple[str | int, ...], tuple[str | int, ...]]
) -> tuple[str | int, ...]:
    for cut in range(len(location), 0, -1):
        if location[:cut] in origin:
            return (*origin[location[:cut]], *location[cut:])
    return ("defaults", *location)
