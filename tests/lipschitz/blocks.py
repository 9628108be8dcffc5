"""Every building block that the registry names, small and with norms at their limits: tests run over all of them."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from acf.lipschitz import NormalisedConv2d, NormalisedLinear
from acf.lipschitz.branch import attention_branch, fc_branch
from acf.lipschitz.layer import LipschitzLayer
from acf.lipschitz.normalised import Normalised
from acf.registry import ACTIVATIONS, ATTENTIONS, BRANCHES, JOINS, resolve
from acf.settings.config import ModelConfig

Shape = tuple[int, ...]
Block = tuple[str, nn.Module, Shape]

MAP = (2, 2, 3)
SIZES: list[tuple[Shape, int]] = [((1, 1, 2), 1), ((4, 2, 2), 2), ((4, 3, 3), 4), ((4, 1, 1), 1), ((3, 2, 3), 2)]


class Core(LipschitzLayer):
    """An attention's core on projections (B, projections * heads * d, H, W) that nothing ties: 1-Lipschitz in all."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2).unflatten(-1, (self.layer.projections, self.layer.heads, -1))
        return self.layer.core(*tokens.permute(2, 0, 3, 1, 4))

    def lipschitz_bound(self, n_tokens: int) -> float:
        return 1.0


def attention(kind: str, channels: int, heads: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return resolve(ATTENTIONS, kind, "attention")(channels, heads)


def core(kind: str, n_tokens: int, width: int = 1) -> tuple[Core, Shape]:
    made = Core(attention(kind, width))
    return made, (made.layer.projections * width, 1, n_tokens)


def building_blocks() -> Iterator[Block]:
    """(name, module, shape of one input) of all building blocks, alone and joined, and of all branches."""
    for name, module, shape in (*_attentions(), *_maps(), *_branches()):
        yield name, strengthened(module), shape


def strengthened(module: nn.Module) -> nn.Module:
    """Bring all norms from where layers start to their limits."""
    for part in module.modules():
        if isinstance(part, Normalised):
            with torch.no_grad():
                part.weight.mul_(5)
            part.converge_norm(1e-6)
    return module


def _attentions() -> Iterator[Block]:
    for kind in ATTENTIONS:
        for shape, heads in SIZES:
            yield f"{kind}, {heads} heads, {shape}", attention(kind, shape[0], heads), shape
        for tokens in (2, 5):
            yield f"core of {kind}, {tokens} tokens", *core(kind, tokens)
        for join in JOINS:
            made = resolve(JOINS, join, "way of joining").for_channels(partial(attention, kind), 2, 0.5)
            yield f"{kind}, {join}", made, (2, 2, 2)


def _maps() -> Iterator[Block]:
    torch.manual_seed(0)
    for name in ACTIVATIONS:
        yield name, resolve(ACTIVATIONS, name, "activation")(), (2, 2, 2)
    for kernel in (1, 3, 5):
        for size in ((1, 1), (3, 4)):
            yield f"convolution {kernel}, {size}", NormalisedConv2d(2, 3, kernel, size), (2, *size)
    yield "linear", NormalisedLinear(12, 5), (12,)


def _branches() -> Iterator[Block]:
    for name in BRANCHES:
        make = partial(resolve(BRANCHES, name, "branch"), leading_activation=True)
        for activation in ACTIVATIONS:
            yield f"{name}, {activation}", make(_config(branch=name, activation=activation), MAP), MAP
        for kind in ATTENTIONS:
            yield (
                f"{name}, {kind}",
                make(_config(branch=name, attention={"kind": kind, "heads": 2, "join": "convex"}), MAP),
                MAP,
            )
    for activation in ACTIVATIONS:
        yield f"fully connected, {activation}", fc_branch(_config(activation=activation), MAP), MAP
    for kind in ATTENTIONS:
        block = {"kind": kind, "heads": 2, "join": "block"}
        yield f"{kind} as a block", attention_branch(_config(attention=block), MAP), MAP


def _config(**settings: Any) -> ModelConfig:
    torch.manual_seed(0)
    small = {"idim": 4, "fc_width": 6, "blocks": [1], "dense": {"depth": 2, "growth": 4}}
    return ModelConfig.model_validate({"shape": MAP} | small | settings)
