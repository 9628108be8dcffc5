"""What each variant of an experiment is compared with: the variant that it adds one thing to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from acf.settings.params import Params

RESIDUAL = "residual"
NONE = "none"


class Architecture(NamedTuple):
    """What bases are found by.

    Attributes:
        task: what a variant is trained for.
        block: kind of its blocks.
        branch: kind of their branches.
        attention: form of attention, "none" without.
        others: all other settings of model and training, by dotted key.
    """

    task: str
    block: str
    branch: str
    attention: str
    others: Mapping[str, Any]

    @property
    def kind(self) -> tuple[str, str, str]:
        """What a variant and its base have in common, unless the base is one of other blocks."""
        return self.task, self.block, self.branch


def bases(params: Params, experiment: str) -> dict[str, str | None]:
    """Return the base of each variant of an experiment, None where it has none.

    The base of a variant with attention is one without, for the same task, of the same block and branch. That of a
    variant without attention is one before it, in the order of params.yaml, of the same task, block and branch. Where
    there is none and its blocks are not residual, it is one with residual blocks, of the same task and branch. Of
    several, it is the one that has the most of all other settings in common, and of those the first.
    """
    return bases_of(architectures(params, experiment))


def bases_of(found: Mapping[str, Architecture]) -> dict[str, str | None]:
    """Return the base of each of these variants, as `bases`."""
    return {variant: _base(variant, found) for variant in found}


def attentive(params: Params, experiment: str) -> set[str]:
    """Return the variants of an experiment that have attention."""
    return {variant for variant, one in architectures(params, experiment).items() if one.attention != NONE}


def plain(params: Params, experiment: str) -> dict[str, list[str]]:
    """Return for each variant with attention all those without, for the same task, of the same block and branch."""
    found = architectures(params, experiment)
    return {
        variant: [name for name, other in found.items() if other.attention == NONE and other.kind == one.kind]
        for variant, one in found.items()
        if one.attention != NONE
    }


def architectures(params: Params, experiment: str) -> dict[str, Architecture]:
    """Return what bases are found by, of each variant of an experiment in the order of params.yaml."""
    return {variant: _architecture(params, experiment, variant) for variant in params.variants(experiment)}


def _architecture(params: Params, experiment: str, variant: str) -> Architecture:
    run = params.resolve(experiment, variant)
    model, training = run.model.model_dump(mode="json"), run.training.model_dump(mode="json")
    attention = model.pop("attention")["kind"]
    others = dict(_leaves({"model": model, "training": training}))
    return Architecture(run.training.task.kind, model.get("block", RESIDUAL), model["branch"], attention, others)


def _leaves(settings: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    leaves = []
    for key, value in settings.items():
        leaves += _leaves(value, f"{above}{key}.") if isinstance(value, dict) else [(f"{above}{key}", value)]
    return leaves


def _base(variant: str, found: Mapping[str, Architecture]) -> str | None:
    own = found[variant]
    plain = {name: one for name, one in found.items() if one.attention == NONE and name != variant}
    alike = {name: one for name, one in plain.items() if one.kind == own.kind}
    if own.attention != NONE:
        return _nearest(own, alike)
    names = list(found)
    before = {name: one for name, one in alike.items() if names.index(name) < names.index(variant)}
    if before or own.block == RESIDUAL:
        return _nearest(own, before)
    residual = own._replace(block=RESIDUAL).kind
    return _nearest(own, {name: one for name, one in plain.items() if one.kind == residual})


def _nearest(own: Architecture, candidates: Mapping[str, Architecture]) -> str | None:
    def differing(name: str) -> int:
        other = candidates[name].others
        return sum(own.others.get(key) != other.get(key) for key in {*own.others, *other})

    return min(candidates, key=differing, default=None)  # of several the first
