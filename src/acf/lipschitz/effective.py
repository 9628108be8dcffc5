"""The effective tensors of many layers at once, in a number of operations that does not depend on how many there are.

Layers with closed-form derivatives describe their effective tensors before these are computed: a nested tuple of
tensors, of `Scalar`s, functions of one learnt number, and of `ScaledMap`s, normalised linear maps. `evaluate` stacks
the numbers of equal functions and the weights of equal shapes.
"""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor
from typing_extensions import override

from acf.lipschitz.kernels.power_iteration import LinearMap, stacked_estimates, stacking_key
from acf.lipschitz.kernels.stack import stacked
from acf.lipschitz.layer import LipschitzLayer, Tensors
from acf.lipschitz.precision import autocast_off

Functions: TypeAlias = Callable[[Tensor], tuple[Tensor, ...]]


class NormalisedMap(LinearMap, Protocol):
    """A linear map x -> T_W x + b with W scaled down to norm at most `coefficient`; `slack` corrects the estimate."""

    bias: Tensor | None
    slack: Tensor
    coefficient: float


@dataclass(eq=False, slots=True)
class Scalar:
    """Entry `index` of what `functions` make of the parameter.

    They get parameters of one shape stacked along dimension 0, those of all scalars whose `functions` are equal, and
    treat each on its own.
    """

    functions: Functions
    parameter: Tensor
    index: int = 0


Scale: TypeAlias = Scalar | Tensor


@dataclass(eq=False, slots=True)
class ScaledMap:
    """The tensors of a s (T_W r x + b): (s r W / max(1, slack sigma / coefficient), s b), the latter where b is.

    Attributes:
        layer: T_W and b, with the vectors u, v of the estimate sigma = <u, T_W v>.
        input_scale: r, of one element; None for 1.
        output_scale: s, of one element; None for 1.
    """

    layer: NormalisedMap
    input_scale: Scale | None = None
    output_scale: Scale | None = None


Description: TypeAlias = Tensor | Scalar | ScaledMap | tuple[Any, ...]
"""A tensor, what one is computed from, or a tuple of descriptions."""


class Described(LipschitzLayer):
    """Base of layers that describe their effective tensors.

    A subclass that defines `effective_tensors` itself and no description is described by what that returns.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "effective_tensors" in cls.__dict__ and "described_tensors" not in cls.__dict__:
            cls.described_tensors = LipschitzLayer.described_tensors  # type: ignore[method-assign]

    @abstractmethod
    @override
    def described_tensors(self) -> Description:
        """Return the description of `effective_tensors`."""

    @override
    def effective_tensors(self) -> Tensors:
        """Return what `described_tensors` describes, with graph to the parameters."""
        return effective_tensors([self])[0]


def effective_tensors(layers: Sequence[LipschitzLayer]) -> list[Tensors]:
    """Return [layer.effective_tensors() for layer in layers], equal up to rounding and with the same gradients.

    The number of operations depends on how many shapes of weights there are, not on how many layers. A layer without a
    description adds those of its own `effective_tensors`. No value is read on the host, and none is copied to a device.
    """
    return evaluate([layer.described_tensors() for layer in layers])


def evaluate(descriptions: Iterable[Description]) -> list[Any]:
    """Return the tensors that are described, in the same nested form; a `ScaledMap` becomes a tuple."""
    descriptions = list(descriptions)
    entries = list(_entries(descriptions))
    maps = [entry for entry in entries if isinstance(entry, ScaledMap)]
    scales = [scale for entry in maps for scale in (entry.input_scale, entry.output_scale)]
    values = _scalars([entry for entry in (*entries, *scales) if isinstance(entry, Scalar)])
    values.update(_maps(maps, values))

    def filled(entry: Any) -> Any:
        if isinstance(entry, tuple):
            return tuple(map(filled, entry))
        return entry if isinstance(entry, Tensor) else values[entry]

    return list(map(filled, descriptions))


def _entries(descriptions: Iterable[Description]) -> Iterator[Description]:
    for entry in descriptions:
        if isinstance(entry, tuple):
            yield from _entries(entry)
        else:
            yield entry


def _scalars(scalars: Sequence[Scalar]) -> dict[Any, Any]:
    """The values of all scalars; each function is called once per shape, type and device of its parameters."""
    groups: dict[Hashable, dict[Tensor, list[Scalar]]] = defaultdict(lambda: defaultdict(list))
    for scalar in scalars:
        p = scalar.parameter
        groups[scalar.functions, p.shape, p.dtype, p.device, p.requires_grad][p].append(scalar)
    values: dict[Any, Any] = {}
    for group in groups.values():
        functions = next(iter(group.values()))[0].functions
        outputs = [output.unbind() for output in functions(stacked(list(group)))]
        for place, same_parameter in enumerate(group.values()):
            values.update((scalar, outputs[scalar.index][place]) for scalar in same_parameter)
    return values


@dataclass(eq=False, slots=True)
class _Part:
    """A map to be evaluated, with the values of its scales."""

    entry: ScaledMap
    layer: NormalisedMap
    bias: Tensor | None
    input_scale: Tensor | None
    output_scale: Tensor | None


def _maps(maps: Sequence[ScaledMap], values: dict[Any, Any]) -> dict[ScaledMap, Tensors]:
    """The tensors of all maps. Those with gradient are kept apart from those without, so that each has its own."""
    batches: dict[Hashable, dict[Hashable, list[_Part]]] = defaultdict(lambda: defaultdict(list))
    for entry in maps:
        layer, weight = entry.layer, entry.layer.weight
        scales = [values.get(scale, scale) for scale in (entry.input_scale, entry.output_scale)]
        part = _Part(entry, layer, layer.bias, *scales)
        trained = weight.requires_grad or any(scale is not None and scale.requires_grad for scale in scales)
        # A scale of 1 may join both those with gradient and those without.
        of_scales = [scale is None or scale.requires_grad for scale in scales]
        key = weight.dtype, weight.device, layer.coefficient, trained, *of_scales
        output_trained = part.output_scale is not None and part.output_scale.requires_grad
        bias_trained = part.bias is not None and (part.bias.requires_grad or output_trained)
        batches[key][stacking_key(layer), part.bias is None, bias_trained].append(part)
    results: dict[ScaledMap, Tensors] = {}
    for batch in batches.values():
        groups = list(batch.values())
        with autocast_off(groups[0][0].layer.weight.device.type):
            results.update(_batch(groups))
    return results


def _batch(groups: Sequence[Sequence[_Part]]) -> Iterator[tuple[ScaledMap, Tensors]]:
    """Yield maps with their tensors, for groups of maps of one shape each, all of one type, device and coefficient."""
    weights_of_groups = [stacked([part.layer.weight for part in group]) for group in groups]
    layers = [[part.layer for part in group] for group in groups]
    norms = torch.cat([stacked_estimates(*pair) for pair in zip(layers, weights_of_groups, strict=True)])
    slack = torch.stack([layer.slack for group in layers for layer in group])
    factors = normalising_factors(norms, slack, layers[0][0].coefficient)
    parts = [part for group in groups for part in group]
    input_scales = _stacked_scales([part.input_scale for part in parts], factors)
    output_scales = _stacked_scales([part.output_scale for part in parts], factors)
    for scales in (input_scales, output_scales):
        factors = factors if scales is None else factors * scales
    sizes = [len(group) for group in groups]
    of_groups = factors.split(sizes)
    of_biases = [None] * len(groups) if output_scales is None else output_scales.split(sizes)
    for group, weights, factor, bias_factor in zip(groups, weights_of_groups, of_groups, of_biases, strict=True):
        scaled = (weights * factor.view(-1, *[1] * (weights.dim() - 1))).unbind()
        for part, weight, bias in zip(group, scaled, _biases(group, bias_factor), strict=True):
            yield part.entry, (weight,) if bias is None else (weight, bias)


def normalising_factors(norms: Tensor, slack: Tensor, coefficient: float) -> Tensor:
    """Return 1 / max(1, slack sigma / coefficient) for norms sigma and slack of one shape."""
    return (slack * norms / coefficient).clamp_min(1.0).reciprocal()


def _biases(group: Sequence[_Part], factors: Tensor | None) -> Sequence[Tensor | None]:
    biases = [part.bias for part in group]
    if factors is None or all(part.output_scale is None for part in group):
        return biases
    present = [bias for bias in biases if bias is not None]  # all or none, as the groups are formed
    return (stacked(present) * factors.unsqueeze(1)).unbind() if present else biases


def _stacked_scales(scales: Sequence[Tensor | None], like: Tensor) -> Tensor | None:
    """The scales (n,) in the type and on the device of `like`, 1 where there is none; None if there is none at all."""
    if all(scale is None for scale in scales):
        return None
    one = like.new_ones(())
    return stacked([one if scale is None else _like(scale, like) for scale in scales])


def _like(scale: Tensor, like: Tensor) -> Tensor:
    scale = scale if scale.dtype == like.dtype and scale.device == like.device else scale.to(like)
    return scale if scale.dim() == 0 else scale.reshape(())
