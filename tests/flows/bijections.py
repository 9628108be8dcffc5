"""Every bijection of the package by name, small enough for its exact Jacobian; all tests of the interface share it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import acf
from acf.flows.actnorm import ActNorm
from acf.flows.bijection import Bijection, Chain
from acf.flows.logit import Logit
from acf.flows.multiscale import MultiScale
from acf.flows.residual import ResidualBlock
from acf.flows.squeeze import Squeeze
from acf.lipschitz.branch import Shape, fc_branch
from acf.lipschitz.normalised import Normalised
from acf.registry import BRANCHES, resolve
from acf.settings.config import EvaluationLogDetConfig, ModelConfig, TrainingLogDetConfig


@dataclass(frozen=True)
class Case:
    """A bijection with the inputs it takes.

    Attributes:
        make: constructor, which draws weights from torch's global generator.
        shape: (C, H, W) of the input.
        unit: whether inputs lie in [0, 1].
        iterative: whether the inverse is found by iteration and the log-determinant estimated.
        flat: whether the output is (B, C * H * W).
    """

    make: Callable[[], nn.Module]
    shape: Shape
    unit: bool = False
    iterative: bool = False
    flat: bool = False

    def build(self, seed: int = 0) -> nn.Module:
        """In float64 and evaluation mode, with weights and buffers away from where they start."""
        torch.manual_seed(seed)
        made = disturbed(self.make().double())
        return made.eval()

    def inputs(self, batch: int, seed: int = 0) -> Tensor:
        draw = torch.Generator().manual_seed(seed)
        x = torch.rand(batch, *self.shape, dtype=torch.float64, generator=draw)
        return x if self.unit else 3 * (x - 0.5)

    def outputs(self, batch: int, seed: int = 1) -> Tensor:
        """Points of the range: an image, moved where the range is the whole space."""
        with torch.no_grad():
            y = self.build().transform(self.inputs(batch, seed))
        return y if self.unit else y + 0.1 * torch.randn(y.shape, dtype=y.dtype)


def disturbed(module: nn.Module, scale: float = 3.0) -> nn.Module:
    """Make weights large, so that branches are near their bounds, and every parameter count."""
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, Normalised):
                part.weight.mul_(scale)
                part.converge_norm()
            if isinstance(part, ActNorm):
                part.shift.normal_(0, 0.3)
                part.log_scale.normal_(0, 0.2)
                part.initialised.fill_(True)
    return module


def aligned(made: ResidualBlock, sign: float = 1.0) -> ResidualBlock:
    """Make the last map of the branch nearly +- the adjoint of the first and the activations steep.

    The Jacobian is then close to a symmetric matrix with eigenvalues of one sign: the log-determinant is large and all
    orders of its series matter, which is not so for random weights, whose traces nearly vanish.
    """
    maps = [part for part in made.branch if isinstance(part, Normalised)]
    with torch.no_grad():
        first, middle, last = (part.weight for part in maps)
        back = first.transpose(0, 1)
        last.copy_(sign * (back.flip(2, 3) if back.dim() == 4 else back))
        middle.copy_(torch.eye(len(middle)).view_as(middle))
        for part in maps:
            part.weight.add_(0.05 * torch.randn_like(part.weight)).mul_(10)
            part.bias.fill_(2.0)
            part.converge_norm(1e-6, 2000)
    return made


def block(shape: Shape, branch: str = "conv", leading: bool = True, **model: object) -> ResidualBlock:
    config = ModelConfig(**{"shape": shape, "idim": 4, "fc_width": 5, "blocks": [1], **model})
    made = fc_branch(config, shape) if branch == "fc" else resolve(BRANCHES, branch, "branch")(config, shape, leading)
    return ResidualBlock(made, shape, TrainingLogDetConfig(), EvaluationLogDetConfig(exact_terms=10))


def flow(shape: Shape, blocks: tuple[int, ...] = (2,), **model: object) -> acf.Flow:
    small = {"idim": 4, "fc_blocks": 1, "fc_width": 4, "evaluation_log_det": {"exact_terms": 10}}
    return acf.build({"shape": shape, "blocks": list(blocks), **small, **model})


def data_initialised(per_value: bool) -> ActNorm:
    made = ActNorm((2, 2, 3), per_value).train()
    made(2 + 3 * torch.randn(50, 2, 2, 3))
    return made


def scales(factor_out: bool) -> Bijection:
    shapes = [(2, 4, 2), (4 if factor_out else 8, 2, 1)]
    second = Chain(Squeeze(), ActNorm(shapes[1]))
    return MultiScale([Chain(ActNorm(shapes[0])), second], shapes, factor_out)


def attention(kind: str, heads: int = 1, join: str = "convex") -> dict[str, object]:
    return {"attention": {"kind": kind, "heads": heads, "join": join}}


def residual(shape: Shape = (2, 2, 2), **options: object) -> Case:
    return Case(lambda: block(shape, **options), shape, iterative=True)  # type: ignore[arg-type]


def whole(shape: Shape, **options: object) -> Case:
    return Case(lambda: flow(shape, **options), shape, unit=True, iterative=True, flat=True)  # type: ignore[arg-type]


BIJECTIONS: dict[str, Case] = {
    "logit 0.05": Case(lambda: Logit(0.05), (1, 2, 3), unit=True),
    "logit 0.3": Case(lambda: Logit(0.3), (1, 2, 3), unit=True),
    "logit 1e-6": Case(lambda: Logit(1e-6), (1, 2, 3), unit=True),
    "actnorm": Case(lambda: ActNorm((2, 2, 3)), (2, 2, 3)),
    "actnorm per value": Case(lambda: ActNorm((2, 2, 3), per_value=True), (2, 2, 3)),
    "actnorm from data": Case(lambda: data_initialised(False), (2, 2, 3)),
    "actnorm per value from data": Case(lambda: data_initialised(True), (2, 2, 3)),
    "squeeze": Case(lambda: Squeeze(), (2, 2, 4)),
    "chain": Case(lambda: Chain(ActNorm((1, 2, 4)), Squeeze(), ActNorm((4, 1, 2))), (1, 2, 4)),
    "two scales": Case(lambda: scales(False), (2, 4, 2), flat=True),
    "two scales, factor out": Case(lambda: scales(True), (2, 4, 2), flat=True),
    "residual": residual(),
    "residual, elu": residual(activation="elu"),
    "residual, first": residual(leading=False),
    "residual, one convolution": residual(leading=False, kernels=[3]),
    "residual, one position": residual((3, 1, 1)),
    "residual, l2": residual(**attention("l2")),
    "residual, l2, 2 heads, elu": residual(activation="elu", **attention("l2", 2)),
    "residual, dot": residual(**attention("dot")),
    "residual, dot, 4 heads, first": residual(leading=False, **attention("dot", 4)),
    "residual, clip": residual(**attention("clip", 3)),
    "residual, sinkhorn": residual(**attention("sinkhorn", 2)),
    "residual, sinkhorn, concatenated": residual(**attention("sinkhorn", 2, "concatenate")),
    "residual, sinkhorn, split": residual(**attention("sinkhorn", 2, "split")),
    "residual, dense": residual(branch="dense", activation="clipswish", dense={"depth": 2, "growth": 4}),
    "residual, fc": residual(branch="fc"),
    "residual, fc, elu": residual(branch="fc", activation="elu"),
    "flow": whole((1, 2, 3)),
    "flow without actnorm": whole((1, 2, 3), actnorm=False),
    "flow, squeeze first, 5 bits": whole((1, 4, 4), squeeze_first=True, levels=32),
    "flow, three channels, factor out": whole(
        (3, 4, 4), blocks=(1, 1), factor_out=True, squeeze_first=True, fc_blocks=0
    ),
    "flow, two scales, l2": whole((1, 4, 4), blocks=(1, 1), **attention("l2", 2)),
    "flow, attention in blocks of its own": whole((1, 4, 4), squeeze_first=True, **attention("sinkhorn", 2, "block")),
    "flow, dense, clip": whole(
        (1, 2, 4), branch="dense", activation="clipswish", dense={"depth": 2, "growth": 4}, **attention("clip", 2)
    ),
    "flow, dot, logit 1e-6": whole((1, 2, 2), logit_alpha=1e-6, **attention("dot", 2)),
}
FLOWS = {name: case for name, case in BIJECTIONS.items() if name.startswith("flow")}
