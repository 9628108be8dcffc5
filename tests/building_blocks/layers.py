"""Every kind of layer and branch with a Lipschitz bound, small and by name."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from acf.lipschitz import NormalisedConv2d, NormalisedLinear, OrthogonalLinear, PotentialLayer, Reshape
from acf.lipschitz.attention.self_attention import SelfAttention
from acf.lipschitz.branch import Branch, attention, attention_branch, fc_branch
from acf.lipschitz.layer import LipschitzLayer
from acf.registry import ACTIVATIONS, ATTENTIONS, BRANCHES, JOINS, resolve
from tests.building_blocks.settings import model_config, with_attention
from tests.building_blocks.weights import bring_norms_to_limits

Shape = tuple[int, ...]
MAP = (2, 2, 3)
"""(C, H, W) of what branches are given."""


@dataclass(frozen=True)
class LayerCase:
    """A layer with the shape of one of its inputs, without the batch.

    Attributes:
        make: constructor, which draws weights from torch's global generator.
        shape: shape of one input.
    """

    make: Callable[[], LipschitzLayer]
    shape: Shape

    def build(self) -> LipschitzLayer:
        """The layer in float64, with norms at their limits; random numbers go on as if it had been made anew."""
        made, state = _built(self)
        torch.set_rng_state(state)
        return copy.deepcopy(made)


@cache
def _built(case: LayerCase) -> tuple[LipschitzLayer, Tensor]:
    torch.manual_seed(0)
    return bring_norms_to_limits(case.make().double()), torch.get_rng_state()


class Times(LipschitzLayer):
    """factor x, which has the Lipschitz constant |factor|."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x

    def lipschitz_bound(self, n_tokens: int) -> float:
        return abs(self.factor.item())


class AttentionCore(LipschitzLayer):
    """The core of an attention without its projections, so that queries, keys and values are independent inputs.

    The input is (B, projections * heads * d, H, W). The Lipschitz constant in all of it together is at most 1.
    """

    def __init__(self, attention: SelfAttention) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2).unflatten(-1, (self.attention.projections, self.attention.heads, -1))
        return self.attention.core(*tokens.permute(2, 0, 3, 1, 4))

    def input_shape(self, n_tokens: int) -> Shape:
        values = self.attention.projections * self.attention.heads * self.attention.head_width
        return values, 1, n_tokens

    def lipschitz_bound(self, n_tokens: int) -> float:
        return 1.0


def make_attention(kind: str, channels: int, heads: int = 1) -> SelfAttention:
    """The attention of this name, always with the same weights."""
    torch.manual_seed(0)
    made: SelfAttention = resolve(ATTENTIONS, kind, "attention")(channels, heads)
    return made


def make_attention_of_places(kind: str, channels: int, heads: int, **settings: Any) -> SelfAttention:
    """The attention of this name as settings make it for maps of 2 x 4 positions, which some of them have to know."""
    torch.manual_seed(0)
    config = model_config((channels, 2, 4), **with_attention(kind, heads, **settings))
    made = attention(config, channels, (2, 4))
    assert isinstance(made, SelfAttention)
    return made


def make_attention_core(kind: str) -> AttentionCore:
    """The core of one head on tokens of one value."""
    return AttentionCore(make_attention(kind, 1))


def make_join(
    join: str, make_inner: Callable[[int], nn.Module], channels: int = 2, share: float = 0.5
) -> LipschitzLayer:
    """The way of joining of this name, around the map that `make_inner` makes for a number of channels."""
    made: LipschitzLayer = resolve(JOINS, join, "way of joining").for_channels(make_inner, channels, share)
    return made


def make_activation(name: str) -> LipschitzLayer:
    made: LipschitzLayer = resolve(ACTIVATIONS, name, "activation")()
    return made


def make_branch(name: str, **settings: Any) -> Branch:
    """The branch of this name on `MAP`, or the fully connected one for "fc"."""
    config = model_config(MAP, **settings)
    if name == "fc":
        return fc_branch(config, MAP)
    made: Branch = resolve(BRANCHES, name, "branch")(config, MAP, leading_activation=True)
    return made


def _attentions() -> dict[str, LayerCase]:
    """Every attention with one head and with several, on one token and more, alone, joined, and its core."""
    cases = {}
    for kind in ATTENTIONS:
        for shape, heads in [((1, 1, 2), 1), ((4, 2, 2), 2), ((4, 3, 3), 4), ((4, 1, 1), 1), ((3, 2, 3), 2)]:
            make = partial(make_attention, kind, shape[0], heads)
            cases[f"{kind}, {heads} heads, {shape}"] = LayerCase(make, shape)
        for n_tokens in (2, 5):
            make = partial(make_attention_core, kind)
            cases[f"core of {kind}, {n_tokens} tokens"] = LayerCase(make, make().input_shape(n_tokens))
        for join in JOINS:
            make = partial(make_join, join, partial(make_attention, kind))
            cases[f"{kind}, {join}"] = LayerCase(make, (2, 2, 2))
    position = {"position": "relative", "position_start": "shifts"}
    for name, kind, settings in [
        ("sinkhorn with position", "sinkhorn", position),
        ("sinkhorn with position in windows", "sinkhorn", position | {"window": 2}),
        ("l2 in windows", "l2", {"window": 2}),
    ]:
        cases[name] = LayerCase(partial(make_attention_of_places, kind, 2, 2, **settings), (2, 2, 4))
    return cases


def _maps() -> dict[str, LayerCase]:
    """Every activation and every linear map."""
    cases = {name: LayerCase(partial(make_activation, name), (2, 2, 2)) for name in ACTIVATIONS}
    for kernel in (1, 3, 5):
        for size in ((1, 1), (3, 4)):
            make = partial(NormalisedConv2d, 2, 3, kernel, size)
            cases[f"convolution {kernel}, {size}"] = LayerCase(make, (2, *size))
    for kernel, hidden in ((1, 3), (3, 5)):
        make = partial(PotentialLayer, 2, hidden, kernel, (2, 3))
        cases[f"potential layer {kernel}"] = LayerCase(make, (2, 2, 3))
    cases["linear"] = LayerCase(lambda: NormalisedLinear(12, 5), (12,))
    cases["orthogonal linear"] = LayerCase(lambda: OrthogonalLinear(12, 5), (12,))
    cases["reshape"] = LayerCase(lambda: Reshape(12), (2, 2, 3))
    return cases


def _branches() -> dict[str, LayerCase]:
    """Every branch with every activation and every attention, and attention alone."""
    cases = {}
    for name in (*BRANCHES, "fc"):
        for activation in ("lipswish",) if name == "potential" else ACTIVATIONS:  # that branch has one of its own
            cases[f"{name}, {activation}"] = LayerCase(partial(make_branch, name, activation=activation), MAP)
    for kind in ATTENTIONS:
        for name in BRANCHES:
            cases[f"{name}, {kind}"] = LayerCase(partial(make_branch, name, **with_attention(kind)), MAP)
        alone = model_config(MAP, **with_attention(kind, join="block"))
        cases[f"{kind} as a block"] = LayerCase(partial(attention_branch, alone, MAP), MAP)
    return cases


LAYERS: dict[str, LayerCase] = _attentions() | _maps() | _branches()
