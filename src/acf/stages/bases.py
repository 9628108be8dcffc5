"""What each variant of an experiment is compared with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from acf.settings.params import Params

SIZES = ("blocks", "idim", "fc_blocks", "fc_width", "dense", "head_width")
"""Settings of a model in which a variant with attention may differ from its base."""
NONE = "none"


class Architecture(NamedTuple):
    """What bases are found by.

    Attributes:
        task: what a variant is trained for.
        attention: form of attention, "none" without.
        kind: all settings of the model but those of attention and `SIZES`.
        others: all settings of training, and `SIZES`, by dotted key.
    """

    task: str
    attention: str
    kind: Mapping[str, Any]
    others: Mapping[str, Any]

    def is_alike(self, other: Architecture) -> bool:
        """Whether the two differ, beside their attention, in size and training alone, and have the same task."""
        return (self.task, self.kind) == (other.task, other.kind)


def bases(params: Params, experiment: str) -> dict[str, str | None]:
    """Return the base of each variant of an experiment, which has its task; None where it has none.

    The base of a variant with attention is one without that else differs in size and training alone: of several the one
    with most of these settings in common, and of those the first. That of others without attention is the first without
    attention in the experiment.
    """
    found = architectures(params, experiment)
    return {variant: _base(variant, found) for variant in found}


def attentive(params: Params, experiment: str) -> set[str]:
    """Return the variants of an experiment that have attention."""
    return {variant for variant, one in architectures(params, experiment).items() if one.attention != NONE}


def within_branches(params: Params, experiment: str) -> set[str]:
    """Return the variants of an experiment whose attention is a part of branches, and in no blocks of its own."""
    return {
        variant
        for variant in attentive(params, experiment)
        if params.resolve(experiment, variant).model.attention.join != "block"
    }


def plain(params: Params, experiment: str) -> dict[str, list[str]]:
    """Return for each variant with attention all those without that else differ in size and training alone."""
    found = architectures(params, experiment)
    return {variant: _alike(one, found) for variant, one in found.items() if one.attention != NONE}


def plain_of_other_size(params: Params, experiment: str) -> dict[str, list[str]]:
    """Return for each variant with attention all those without that else differ in size alone."""
    found = architectures(params, experiment)
    return {variant: _differing_in_size(one, found) for variant, one in found.items() if one.attention != NONE}


def architectures(params: Params, experiment: str) -> dict[str, Architecture]:
    """Return what bases are found by, of each variant of an experiment in the order of params.yaml."""
    return {variant: _architecture(params, experiment, variant) for variant in params.variants(experiment)}


def _architecture(params: Params, experiment: str, variant: str) -> Architecture:
    run = params.resolve(experiment, variant)
    model = run.model.model_dump(mode="json", exclude={"attention"})
    others = dict(_leaves({name: model.pop(name) for name in SIZES} | run.training.model_dump(mode="json")))
    return Architecture(run.training.task.kind, run.model.attention.kind, model, others)


def _leaves(settings: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _alike(own: Architecture, found: Mapping[str, Architecture]) -> list[str]:
    return [name for name, other in found.items() if other.attention == NONE and other.is_alike(own)]


def _differing_in_size(own: Architecture, found: Mapping[str, Architecture]) -> list[str]:
    def training(one: Architecture) -> dict[str, Any]:
        return {key: value for key, value in one.others.items() if key.partition(".")[0] not in SIZES}

    return [name for name in _alike(own, found) if training(found[name]) == training(own)]


def _base(variant: str, found: Mapping[str, Architecture]) -> str | None:
    own = found[variant]
    if own.attention == NONE:
        first = next(name for name, other in found.items() if other.attention == NONE and other.task == own.task)
        return None if first == variant else first

    def differing(name: str) -> int:
        return sum(own.others[key] != value for key, value in found[name].others.items())

    return min(_alike(own, found), key=differing, default=None)  # of several the first
