"""Small residual blocks in float64 for the statistical tests."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from acf.flows.residual import ResidualBlock
from acf.lipschitz.branch import Shape, attention_branch, fc_branch
from acf.lipschitz.normalised import Normalised
from acf.registry import ATTENTIONS, BRANCHES, JOINS, resolve
from acf.settings.config import EvaluationLogDetConfig, ModelConfig, TrainingLogDetConfig

SMALL: dict[str, Any] = {
    "blocks": [1],
    "idim": 6,
    "fc_width": 5,
    "fc_blocks": 1,
    "dense": {"depth": 2, "growth": 4},
    "attention": {"kind": "none", "heads": 2},
}


def config(shape: Shape, **settings: Any) -> ModelConfig:
    return ModelConfig.model_validate({"shape": shape} | SMALL | settings)


def strengthen(module: nn.Module, factor: float = 4.0) -> None:
    """Make every normalised map reach its coefficient, so that terms of all orders of the series count."""
    for part in module.modules():
        if isinstance(part, Normalised):
            part.weight.data.mul_(factor)
            part.converge_norm(1e-12)


def unsettle(module: nn.Module) -> None:
    """Move all but the weights away from where they start, and take every start from data as done."""
    for name, parameter in module.named_parameters():
        if "weight" not in name:
            parameter.data += 0.3 * torch.randn_like(parameter)
    for part in module.modules():
        if hasattr(part, "initialised"):
            part.initialised.fill_(True)


def residual(shape: Shape, dense: bool = False, **settings: Any) -> ResidualBlock:
    """A block as `acf.build` makes it: with a fully connected branch (`dense`), attention alone, or any branch."""
    c = config(shape, **settings)
    if dense:
        branch = fc_branch(c, shape)
    elif c.attention.kind != "none" and c.attention.join == "block":
        branch = attention_branch(c, shape)
    else:
        branch = resolve(BRANCHES, c.branch, "branch")(c, shape, True)
    return ResidualBlock(branch, shape, TrainingLogDetConfig(), EvaluationLogDetConfig()).double()


def attention(kind: str, heads: int = 2, **settings: Any) -> dict[str, Any]:
    return {"kind": kind, "heads": heads, "join": "convex", **settings}


# One block of every branch, with every attention, and with every way in which attention joins a branch.
KINDS: dict[str, dict[str, Any]] = {
    **{name: {"branch": name} for name in sorted(BRANCHES)},
    "fc": {"dense": True},
    **{name: {"attention": attention(name)} for name in sorted(ATTENTIONS)},
    **{
        f"l2, {join}": {"attention": attention("l2", join=join)} for join in ("block", *sorted(set(JOINS) - {"convex"}))
    },
}


def dense_jacobian(block: ResidualBlock, x: Tensor) -> Tensor:
    """Jacobian (D, D) of the branch at x (1, ...), with graph to x and to the weights; independent of the package."""
    values = x.numel()
    return torch.autograd.functional.jacobian(block.branch, x, create_graph=True).reshape(values, values)


@cache
def trained(kind: str, shape: Shape, sign: int = -1) -> tuple[ResidualBlock, Tensor]:
    """A block and an input x (1, ...) at which its Jacobian has eigenvalues up to about 0.6 of the given sign.

    The weights of a fresh branch nearly cancel in the traces, so the block is trained for a large trace. Do not change
    what is returned.
    """
    torch.manual_seed(0)
    block = residual(shape, **({"idim": 4} | KINDS[kind]))
    strengthen(block)
    x = torch.randn(1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    optimiser = torch.optim.Adam(block.parameters(), lr=0.03)
    for _ in range(100):
        dense = dense_jacobian(block, x)
        if float(torch.linalg.matrix_norm(dense.detach(), 2)) > 0.6:
            break
        optimiser.zero_grad()
        (-sign * dense.trace()).backward()
        optimiser.step()
        for layer in block.modules():
            if isinstance(layer, Normalised):
                layer.renormalise(20)
    return block, x
