"""Every kind of bijection, small and by name."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

import acf
from acf.flows.actnorm import ActNorm
from acf.flows.bijection import Bijection, Chain
from acf.flows.logit import Logit
from acf.flows.multiscale import MultiScale
from acf.flows.squeeze import Squeeze
from acf.lipschitz.branch import Shape
from tests.building_blocks.blocks import BLOCK_KINDS, make_block
from tests.building_blocks.settings import SMALL, with_attention
from tests.building_blocks.weights import bring_norms_to_limits, move_all_parameters


@dataclass(frozen=True)
class BijectionCase:
    """A bijection with the inputs it takes.

    Attributes:
        make: constructor, which draws weights from torch's global generator.
        shape: (C, H, W) or (D,) of the input.
        unit: whether inputs lie in [0, 1].
        iterative: whether the inverse is found by iteration and the log-determinant estimated.
        flat: whether the output is (B, C * H * W).
    """

    make: Callable[[], Bijection]
    shape: tuple[int, ...]
    unit: bool = False
    iterative: bool = False
    flat: bool = False

    def build(self, seed: int = 0) -> Bijection:
        """The bijection in float64 and evaluation mode, with all parameters moved and norms at their limits.

        The same seed gives the same weights, and the same random numbers afterwards.
        """
        made = copy.deepcopy(_built(self, seed))
        torch.manual_seed(seed)
        return made

    def inputs(self, batch: int, seed: int = 0) -> Tensor:
        draw = torch.Generator().manual_seed(seed)
        x = torch.rand(batch, *self.shape, dtype=torch.float64, generator=draw)
        return x if self.unit else 3 * (x - 0.5)

    def outputs(self, batch: int, seed: int = 1) -> Tensor:
        """Points of the range: an image, moved where the range is the whole space."""
        with torch.no_grad():
            y = self.build().transform(self.inputs(batch, seed))
        return y if self.unit else y + 0.1 * torch.randn(y.shape, dtype=y.dtype)


@cache
def _built(case: BijectionCase, seed: int) -> Bijection:
    torch.manual_seed(seed)
    return bring_norms_to_limits(move_all_parameters(case.make().double())).eval()


def make_flow(shape: tuple[int, ...], blocks: tuple[int, ...] = (2,), **settings: Any) -> acf.Flow:
    """Build a small flow with fresh weights from torch's global generator."""
    return acf.build({"shape": shape, **SMALL, "blocks": list(blocks), **settings})


def make_moved_flow(shape: tuple[int, ...], blocks: tuple[int, ...] = (2,), **settings: Any) -> acf.Flow:
    """Build a small flow in float64 and evaluation mode, with all parameters moved and norms at their limits."""
    torch.manual_seed(0)
    return bring_norms_to_limits(move_all_parameters(make_flow(shape, blocks, **settings).double())).eval()


def _actnorm_from_data(per_value: bool) -> ActNorm:
    made = ActNorm((2, 2, 3), per_value).train()
    made(2 + 3 * torch.randn(50, 2, 2, 3))
    return made


def _two_scales(factor_out: bool) -> MultiScale:
    shapes = [(2, 4, 2), (4 if factor_out else 8, 2, 1)]
    second = Chain(Squeeze(), ActNorm(shapes[1]))
    return MultiScale([Chain(ActNorm(shapes[0])), second], shapes, factor_out)


def _block(shape: Shape = (2, 2, 2), **settings: Any) -> BijectionCase:
    return BijectionCase(lambda: make_block(shape, **settings), shape, iterative=True)


def _flow(shape: Shape, **settings: Any) -> BijectionCase:
    return BijectionCase(lambda: make_flow(shape, **settings), shape, unit=True, iterative=True, flat=True)


CLIPSWISH = {"branch": "dense", "activation": "clipswish"}
BIJECTIONS: dict[str, BijectionCase] = {
    "logit 0.05": BijectionCase(lambda: Logit(0.05), (1, 2, 3), unit=True),
    "logit 0.3": BijectionCase(lambda: Logit(0.3), (1, 2, 3), unit=True),
    "logit 1e-6": BijectionCase(lambda: Logit(1e-6), (1, 2, 3), unit=True),
    "actnorm": BijectionCase(lambda: ActNorm((2, 2, 3)), (2, 2, 3)),
    "actnorm per value": BijectionCase(lambda: ActNorm((2, 2, 3), per_value=True), (2, 2, 3)),
    "actnorm from data": BijectionCase(lambda: _actnorm_from_data(False), (2, 2, 3)),
    "actnorm per value from data": BijectionCase(lambda: _actnorm_from_data(True), (2, 2, 3)),
    "squeeze": BijectionCase(lambda: Squeeze(), (2, 2, 4)),
    "chain": BijectionCase(lambda: Chain(ActNorm((1, 2, 4)), Squeeze(), ActNorm((4, 1, 2))), (1, 2, 4)),
    "two scales": BijectionCase(lambda: _two_scales(False), (2, 4, 2), flat=True),
    "two scales, factor out": BijectionCase(lambda: _two_scales(True), (2, 4, 2), flat=True),
    **{f"residual, {name}": _block(**settings) for name, settings in BLOCK_KINDS.items()},
    **{f"monotone, {name}": _block(block="monotone", **settings) for name, settings in BLOCK_KINDS.items()},
    "residual, elu": _block(activation="elu"),
    "residual, first of a flow": _block(leading_activation=False),
    "residual, one convolution": _block(leading_activation=False, kernels=[3]),
    "residual, one position": _block((3, 1, 1)),
    "residual, l2, 1 head": _block(**with_attention("l2", 1)),
    "residual, l2, elu": _block(activation="elu", **with_attention("l2")),
    "residual, dot, 1 head": _block(**with_attention("dot", 1)),
    "residual, dot, 4 heads, first of a flow": _block(leading_activation=False, **with_attention("dot", 4)),
    "residual, clip, 3 heads": _block(**with_attention("clip", 3)),
    "residual, sinkhorn, concatenate": _block(**with_attention("sinkhorn", join="concatenate")),
    "residual, sinkhorn, split": _block(**with_attention("sinkhorn", join="split")),
    "residual, dense, clipswish": _block(**CLIPSWISH),
    "residual, fc, elu": _block(branch="fc", activation="elu"),
    "flow": _flow((1, 2, 3)),
    "flow without actnorm": _flow((1, 2, 3), actnorm=False),
    "flow, squeeze first, 5 bits": _flow((1, 4, 4), squeeze_first=True, levels=32),
    "flow, three channels, factor out": _flow(
        (3, 4, 4), blocks=(1, 1), factor_out=True, squeeze_first=True, fc_blocks=0
    ),
    "flow, two scales, l2": _flow((1, 4, 4), blocks=(1, 1), **with_attention("l2")),
    "flow, attention in blocks of its own": _flow(
        (1, 4, 4), squeeze_first=True, **with_attention("sinkhorn", join="block")
    ),
    "flow, dense, clip": _flow((1, 2, 4), **CLIPSWISH, **with_attention("clip")),
    "flow, monotone": _flow((1, 2, 3), block="monotone"),
    "flow, monotone, attention in blocks of its own": _flow(
        (1, 4, 4), squeeze_first=True, block="monotone", **with_attention("sinkhorn", join="block")
    ),
    "flow on vectors": BijectionCase(lambda: make_flow((3,)), (3,), iterative=True, flat=True),
    "flow on vectors, dense": BijectionCase(
        lambda: make_flow((2,), branch="dense", activation="clipswish"), (2,), iterative=True, flat=True
    ),
    "flow, dot, logit 1e-6": _flow((1, 2, 2), logit_alpha=1e-6, **with_attention("dot")),
}
FLOWS = {name: case for name, case in BIJECTIONS.items() if name.startswith("flow")}
