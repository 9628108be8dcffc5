"""Effective tensors of many layers at once: the values and gradients of each layer alone, in few operations."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from acf.lipschitz import Branch, ChannelSplit, Concatenation, ConvexShare, LipSwish, NormalisedLinear
from acf.lipschitz.activations import ScaledActivation
from acf.lipschitz.attention.kernel import KernelSelfAttention
from acf.lipschitz.effective import effective_tensors
from acf.lipschitz.layer import LipschitzLayer, Tensors, flatten
from acf.lipschitz.normalised import Normalised, renormalise
from acf.lipschitz.potential_layer import PotentialLayer
from tests.building_blocks.bijections import make_flow
from tests.building_blocks.layers import LAYERS, Times
from tests.building_blocks.settings import with_attention
from tests.building_blocks.weights import move_all_parameters, normalised_maps

CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def by_definition(layer: LipschitzLayer) -> Any:
    """Effective tensors by their formulas, one layer and one operation after the other."""
    match layer:
        case Normalised():
            estimate = (layer.left * layer.value(layer.right, (layer.weight,))).sum()
            weight = layer.weight / (layer.slack * estimate / layer.coefficient).clamp_min(1.0)
            return (weight,) if layer.bias is None else (weight, layer.bias)
        case ScaledActivation():
            scale = F.softplus(layer.beta).clamp(1e-6, 1e6)
            return scale, 1 / (layer.divisor * scale)
        case PotentialLayer():
            scale = F.softplus(layer.beta).clamp(1e-2, 1e4)
            return tuple(scale * tensor for tensor in by_definition(layer.linear)), 2 / scale.square()
        case ConvexShare():
            return torch.sigmoid(layer.gamma), by_definition(layer.inner)
        case Concatenation():
            return layer.angle.cos(), layer.angle.sin(), by_definition(layer.inner)
        case ChannelSplit():
            return by_definition(layer.inner)
        case KernelSelfAttention():
            return by_definition(layer.project), layer.scales(), by_definition(layer.output)
        case Branch():
            return of_branch(layer)
    return tuple(layer.parameters())


def of_branch(branch: Branch) -> Tensors:
    layers = [*branch.layers(), None]
    tensors = [by_definition(layer) for layer in layers[:-1]]
    for here, layer in enumerate(layers):
        if isinstance(layer, ScaledActivation):
            inner, outer = tensors[here]
            if here > 0 and isinstance(layers[here - 1], Normalised):
                tensors[here - 1], inner = tuple(inner * tensor for tensor in tensors[here - 1]), ()
            if isinstance(layers[here + 1], Normalised):
                weight, *bias = tensors[here + 1]
                tensors[here + 1], outer = (outer * weight, *bias), ()
            tensors[here] = inner, outer
    return tuple(tensors)


def structure(tensors: Any) -> Any:
    return tuple(map(structure, tensors)) if isinstance(tensors, tuple) else tensors.shape


def gradients(tensors: Sequence[Any], layers: Sequence[LipschitzLayer]) -> list[Tensor | None]:
    """Gradients of the sum of each tensor times some numbers."""
    total = torch.zeros((), dtype=torch.float64)
    for tensor in flatten(tuple(tensors)):
        numbers = torch.arange(1, tensor.numel() + 1, dtype=torch.float64).sin().view(tensor.shape)
        total = total + (numbers * tensor).sum()
    parameters = [p for layer in layers for p in layer.parameters() if p.requires_grad]
    return list(torch.autograd.grad(total, parameters, allow_unused=True)) if parameters else []


def assert_same(found: Sequence[Any], expected: Sequence[Any], layers: Sequence[LipschitzLayer], **close: Any) -> None:
    assert structure(tuple(found)) == structure(tuple(expected))
    for a, b in zip(flatten(tuple(found)), flatten(tuple(expected)), strict=True):
        torch.testing.assert_close(a, b, **(close or CLOSE))
        assert a.requires_grad == b.requires_grad
    for a, b in zip(gradients(found, layers), gradients(expected, layers), strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            torch.testing.assert_close(a, b, **(close or CLOSE))


def moved(name: str, seed: int = 0) -> LipschitzLayer:
    """The layer of this name with norms above and below their limits, and slack."""
    layer = LAYERS[name].build()
    torch.manual_seed(seed)
    move_all_parameters(layer)
    for number, part in enumerate(normalised_maps(layer)):
        part.slack.fill_(1 + 0.1 * number)
        part.weight.data.mul_(1 if number % 3 else 0.1)
    return layer


@pytest.fixture(scope="module")
def layers() -> list[LipschitzLayer]:
    return [moved(name, seed) for seed, name in enumerate(LAYERS)]


def test_each_layer_alone_follows_the_formulas(layers: list[LipschitzLayer]) -> None:
    for layer in layers:
        assert_same([layer.effective_tensors()], [by_definition(layer)], [layer])


def test_many_layers_at_once_follow_the_formulas(layers: list[LipschitzLayer]) -> None:
    assert_same(effective_tensors(layers), [by_definition(layer) for layer in layers], layers)


def test_types_and_frozen_parameters_may_differ_between_layers() -> None:
    layers = [moved("conv, lipswish", seed) for seed in range(8)]
    layers[0].float()
    layers[1].requires_grad_(False)
    for name, parameter in (p for layer in layers[2:5] for p in layer.named_parameters()):
        parameter.requires_grad_("weight" in name)
    for name, parameter in layers[5].named_parameters():
        parameter.requires_grad_("beta" in name)
    for layer in normalised_maps(layers[6]):
        layer.coefficient = 0.5
    tensors = effective_tensors(layers)
    assert {tensor.dtype for tensor in flatten(tensors[0])} == {torch.float32}
    assert_same(tensors[:1], [by_definition(layers[0])], layers[:1], rtol=1e-5, atol=1e-5)
    assert_same(tensors[1:], [by_definition(layer) for layer in layers[1:]], layers[1:])


def test_a_parameter_that_two_layers_share_gets_both_gradients() -> None:
    layer = moved("conv, lipswish")
    assert_same(effective_tensors([layer, layer]), [by_definition(layer)] * 2, [layer])


class Halved(NormalisedLinear):
    """A linear map of a user with effective tensors of its own."""

    def effective_tensors(self) -> Tensors:
        return self.weight / 2, self.bias


def test_layers_of_users_are_asked_for_their_own_tensors() -> None:
    branch = Branch(Times(0.5), LipSwish(), Halved(3, 3), LipSwish(), NormalisedLinear(3, 2)).double()
    tensors = branch.effective_tensors()
    assert torch.equal(tensors[0][0], branch[0].factor)
    assert torch.equal(tensors[2][0], branch[2].weight / 2)
    assert all(len(scale.shape) == 0 for scale in tensors[1])  # nothing beside it can absorb its scales
    x = torch.randn(2, 3, dtype=torch.float64)
    expected = branch[4](branch[3](F.linear(branch[1](branch[0](x)), branch[2].weight / 2, branch[2].bias)))
    with torch.no_grad():
        torch.testing.assert_close(branch.value_and_vjp(x, tensors, x.dtype)[0], expected)


class Operations(TorchDispatchMode):
    """Counts the operations within, over any number of entries."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return function(*args, **(kwargs or {}))


def operations(blocks: int, **settings: Any) -> tuple[int, int]:
    """How many make the effective tensors with their gradients, and how many renormalise.

    The flow is on the meta device, which has no values, so that each attempt to read one on the host is an error.
    """
    with torch.device("meta"):
        flow = make_flow((1, 8, 8), (blocks,) * 3, fc_blocks=blocks, **settings)
    branches = [block.branch for block in flow.contractive_blocks().values()]
    parameters = [parameter for branch in branches for parameter in branch.parameters()]
    making, renormalising = Operations(), Operations()
    with making:
        tensors = [tensor for tensor in flatten(tuple(effective_tensors(branches))) if not tensor.is_leaf]
    cotangents = [torch.empty_like(tensor) for tensor in tensors]
    with making:
        torch.autograd.grad(tensors, parameters, cotangents, allow_unused=True)
    with renormalising:
        renormalise(normalised_maps(flow), 5)
    return making.count, renormalising.count


@pytest.mark.parametrize("kind", ["none", "l2", "sinkhorn"])
def test_more_layers_of_the_same_shapes_take_no_more_operations(kind: str) -> None:
    few, many = (operations(blocks, **with_attention(kind, join="block")) for blocks in (3, 6))
    assert few == many


def test_few_operations_for_a_whole_flow_and_no_value_read() -> None:
    making, renormalising = operations(3)
    assert making <= 400
    assert renormalising <= 500
